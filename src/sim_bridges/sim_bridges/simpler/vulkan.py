"""This machine in, nothing out where it can render by Vulkan, or a refusal that names the package that is missing.

SAPIEN 2 ends the process without a word where there is no driver, so it must be asked before.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

from vla_policy.errors import ConfigError

WHAT_TO_INSTALL = (
    "install a driver: NVIDIA's own, or for rendering on the CPU Mesa's lavapipe of version 25 or newer (Debian 12: "
    "apt install -t bookworm-backports mesa-vulkan-drivers libvulkan1; bookworm's own 22.3 is too old)")
LIBRARIES = ("libvulkan.so.1", "libvulkan.so")
_INSTANCE_CREATE_INFO = 1  # VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO


class _InstanceCreateInfo(ctypes.Structure):
    _fields_ = (("sType", ctypes.c_int), ("pNext", ctypes.c_void_p), ("flags", ctypes.c_uint32),
                ("pApplicationInfo", ctypes.c_void_p), ("enabledLayerCount", ctypes.c_uint32),
                ("ppEnabledLayerNames", ctypes.c_void_p), ("enabledExtensionCount", ctypes.c_uint32),
                ("ppEnabledExtensionNames", ctypes.c_void_p))


def check_vulkan(libraries: tuple[str, ...] = LIBRARIES) -> None:
    """Raises: ConfigError where there is no Vulkan loader or no driver under it."""
    loader = None
    for library in libraries:
        with suppress(OSError):
            loader = ctypes.CDLL(library)
            break
    if loader is None:
        raise ConfigError(f"Vulkan: got no {libraries[0]}, which SIMPLER's simulators render with; {WHAT_TO_INSTALL}")
    instance, count = ctypes.c_void_p(), ctypes.c_uint32(0)
    info = _InstanceCreateInfo(sType=_INSTANCE_CREATE_INFO)
    if loader.vkCreateInstance(ctypes.byref(info), None, ctypes.byref(instance)) == 0:
        loader.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None)
        loader.vkDestroyInstance(instance, None)
    if not count.value:
        raise ConfigError(f"Vulkan: got no device, expected a GPU or a software driver; {WHAT_TO_INSTALL}; "
                          "VK_ICD_FILENAMES can name a driver's file")


def explain(problem: RuntimeError) -> ConfigError:
    """What SAPIEN says when it cannot render, in words that help."""
    if "ExtensionNotPresent" in str(problem):
        return ConfigError(f"Vulkan: the driver lacks an extension that SAPIEN asks for ({problem}); lavapipe lacks "
                           "one of SAPIEN 2's: scripts/setup_simplerenv.sh --cpu puts a driver before it that has it")
    return ConfigError(f"SAPIEN could not render: {problem}; {WHAT_TO_INSTALL}")
