"""Simulators behind one protocol, as a library and as a ROS node, and the evaluation of policies in them."""
