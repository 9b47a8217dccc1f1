"""Every module of the library in; out: none of them pulls in ROS, a node, a trainer or a simulator."""

from __future__ import annotations

import subprocess
import sys

IMPORT_ALL = """
import importlib, importlib.util, pkgutil, sys
import vla_policy
names = [module.name for module in pkgutil.walk_packages(vla_policy.__path__, "vla_policy.")]
if importlib.util.find_spec("starlette") is None:  # of the extra ray
    names.remove("vla_policy.remote.ray_serve")
for name in names:
    importlib.import_module(name)
assert len(names) > 15, names
foreign = ("rclpy", "rosidl", "launch", "ament", "sensor_msgs", "std_msgs", "geometry_msgs", "vla_msgs",
           "vla_policy_node", "vla_training", "sim_bridges", "mujoco")
print(",".join(sorted(name for name in sys.modules if name.split(".")[0].startswith(foreign))))
"""


def test_the_library_imports_no_ros() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, timeout=170,
                          check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
