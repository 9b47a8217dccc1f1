"""From a policy's chunk of actions to the one command a robot gets now: codec, schedule, limits, guard.

The policy, the guard node and the in-process rollouts import it; it knows neither ROS nor models.
"""
