"""Sensor samples in, complete and fresh observations out. For the nodes, the policy and training; no ROS."""
