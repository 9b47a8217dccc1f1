"""The names by which teleoperation and guard find each other. Nothing in, names out."""

OPERATOR_TOPIC = "/vla/teleop/action_chunk"  # vla_msgs/ActionChunk, the operator's
TAKE_OVER_SERVICE = "/vla/take_over"  # std_srvs/SetBool; true: the operator has control; false: handed back
TELEOP_STATUS_TOPIC = "/vla/teleop/status"  # vla_msgs/TeleopStatus
