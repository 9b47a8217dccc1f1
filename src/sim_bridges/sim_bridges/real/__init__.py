"""The benchmark on a real robot: what is played, how a session with its operator goes. No ROS but in `nodes`."""
