"""The ROS 2 nodes of the policy stack: wiring only, the thinking stands in `vla_policy`. Nothing imports this package."""
