"""A policy on one machine, its robot or simulator on another: messages, server, client. Imports no ROS."""
