"""Nothing in, the `mujoco` module out, rendering off-screen; or one sentence on which library to install.

MuJoCo picks its OpenGL back end once, while it is imported; without a screen its own default fails late and
obscurely. Everything in this package imports `mujoco` from here. The variable MUJOCO_GL (osmesa, egl, glfw)
overrides the choice.
"""

from __future__ import annotations

import os

from vla_policy.errors import VlaError

PACKAGES = {"osmesa": "libosmesa6", "egl": "libegl1 libegl-mesa0", "glfw": "libglfw3"}
_CHOICES = "|".join(PACKAGES)

os.environ.setdefault("MUJOCO_GL", "osmesa")
os.environ.setdefault("PYOPENGL_PLATFORM", os.environ["MUJOCO_GL"])


class RenderingError(VlaError):
    """The OpenGL library for off-screen rendering is missing or does not work."""


def missing_library() -> RenderingError:
    """The sentence for a back end that does not load."""
    backend = os.environ["MUJOCO_GL"]
    return RenderingError(
        f"the tabletop simulator cannot render: the OpenGL library of MUJOCO_GL={backend} is missing or does "
        f"not work; install it, e.g. `sudo apt install {PACKAGES[backend]}`, or choose another back end with "
        f"MUJOCO_GL={_CHOICES}")


if os.environ["MUJOCO_GL"] not in PACKAGES:
    raise RenderingError(f"MUJOCO_GL: got '{os.environ['MUJOCO_GL']}', expected {_CHOICES}; "
                         "set it so or leave it out")
try:
    import mujoco
except (ImportError, AttributeError, RuntimeError, OSError) as _problem:  # what PyOpenGL raises, by back end
    raise missing_library() from _problem

__all__ = ["RenderingError", "missing_library", "mujoco"]
