"""In: genuine launch_ros actions. Out: ROS nodes, run by the stand-in for `launch` beside this package."""

from launch._refuse import missing_names, refuse_beside_genuine

refuse_beside_genuine("launch_ros")

from . import actions, parameter_descriptions, substitutions  # noqa: E402

__all__ = ["actions", "parameter_descriptions", "substitutions"]
__getattr__ = missing_names("launch_ros", __all__)
