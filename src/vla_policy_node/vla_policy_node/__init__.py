"""The ROS 2 nodes of the policy stack: wiring only, the thinking stands in `vla_policy`.

Simulators share its messages, its paces and how it serves; nothing else imports it.
"""
