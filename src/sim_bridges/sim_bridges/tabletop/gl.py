"""Nothing in, the `mujoco` module out: off-screen rendering chosen, or one sentence that says which library to install.

MuJoCo picks its OpenGL back end once, while it is imported; without a screen its own default fails late and obscurely.
Everything in this package imports `mujoco` from here. The variable MUJOCO_GL (osmesa, egl, glfw) overrides the choice.
"""

from __future__ import annotations

import os

from vla_policy.errors import VlaError

PACKAGES = {"osmesa": "libosmesa6", "egl": "libegl1 libegl-mesa0", "glfw": "libglfw3"}

os.environ.setdefault("MUJOCO_GL", "osmesa")
os.environ.setdefault("PYOPENGL_PLATFORM", os.environ["MUJOCO_GL"])


class RenderingError(VlaError):
    """The OpenGL library for off-screen rendering is missing or does not work."""


def missing_library(problem: Exception) -> RenderingError:
    """The sentence for a back end that does not load."""
    backend = os.environ["MUJOCO_GL"]
    cause = " ".join(str(problem).split()) or type(problem).__name__
    return RenderingError(
        f"the tabletop simulator cannot render: MUJOCO_GL={backend} did not load ({cause}); "
        f"install its library, e.g. `sudo apt install {PACKAGES.get(backend, 'libosmesa6')}`, "
        "or choose another back end with MUJOCO_GL=osmesa|egl|glfw")


try:
    import mujoco
except (ImportError, AttributeError, RuntimeError, OSError) as _problem:  # what PyOpenGL raises, by back end
    raise missing_library(_problem) from _problem

__all__ = ["PACKAGES", "RenderingError", "missing_library", "mujoco"]
