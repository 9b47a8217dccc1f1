"""In: genuine ROS 2 launch files. Out: their processes, run as `ros2 launch` runs them.

A stand-in for the documented subset of `launch` that a clean bringup uses, because PyPI has no launch
package; everything else is refused by name. Only `./run` puts it on the path, and only where no ROS
distribution is.
"""

from ._refuse import missing_names, refuse_beside_genuine

refuse_beside_genuine("launch")

from .action import Action, Condition, LaunchContext, LaunchDescription, SomeSubstitutionsType, Substitution  # noqa: E402
from .events import Event, EventHandler  # noqa: E402
from .launch_description_sources import LaunchDescriptionSource  # noqa: E402
from .service import LaunchService  # noqa: E402

from . import actions, conditions, event_handlers, events, substitutions  # noqa: E402, F401  isort: skip

__all__ = [
    "Action",
    "Condition",
    "Event",
    "EventHandler",
    "LaunchContext",
    "LaunchDescription",
    "LaunchDescriptionSource",
    "LaunchService",
    "SomeSubstitutionsType",
    "Substitution",
]

__getattr__ = missing_names("launch", __all__)
