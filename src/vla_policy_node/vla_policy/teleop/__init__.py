"""What an operator's device says in, action chunks for the guard out. Imported by the teleoperation node; knows no ROS.

mapping: strict YAML. pad, keyboard, leader: a device's words -> a Wish. planner: a Wish -> rows of a chunk.
operator: dead-man, silence, take-over -> chunks and their end.
"""
