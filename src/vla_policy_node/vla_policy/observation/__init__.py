"""Sensor samples in, complete and fresh observations out. Used by the nodes and the recorder; imports no ROS."""
