"""A window: the robot's cameras, the policy's and the guard's state; a line for instructions, stop, e-stop, reset."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from functools import partial
from typing import Any

import cv2
import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger
from vla_msgs.msg import PolicyStatus, SafetyStatus

from vla_policy.contract import load_contract
from vla_policy.errors import VlaError
from vla_policy.messages import image_to_array
from vla_policy_node.pace import LATCHED, LATEST_ONLY, RELIABLE

try:
    import tkinter as tk
except ImportError:  # Debian packs it apart from Python
    tk = None

REFRESH_MS = 50
VIEW_PX = 420
SAFETY_COLOURS = {SafetyStatus.IDLE: "#5f6b7a", SafetyStatus.ACTIVE: "#1a7f37", SafetyStatus.LIMITING: "#9a6700",
                  SafetyStatus.STOPPED: "#cf222e"}
SAFETY_NAMES = {SafetyStatus.IDLE: "idle", SafetyStatus.ACTIVE: "active", SafetyStatus.LIMITING: "limiting",
                SafetyStatus.STOPPED: "STOPPED"}


class ConsoleNode(Node):
    """Keeps the newest of everything; the window reads it."""

    def __init__(self) -> None:
        super().__init__("console")
        self.declare_parameter("contract", "")
        self.contract = load_contract(str(self.get_parameter("contract").value))
        self.images: dict[str, Image | CompressedImage] = {}
        self.policy: PolicyStatus | None = None
        self.safety: SafetyStatus | None = None
        for name, camera in self.contract.cameras.items():
            kind = CompressedImage if camera.compressed else Image
            self.create_subscription(kind, camera.topic, partial(self.images.__setitem__, name), LATEST_ONLY)
        self.create_subscription(PolicyStatus, "/vla/status", partial(setattr, self, "policy"), RELIABLE)
        self.create_subscription(SafetyStatus, "/vla/safety", partial(setattr, self, "safety"), LATCHED)
        self._instruction = self.create_publisher(String, "/instruction", RELIABLE)
        self._estop = self.create_client(SetBool, "/vla/set_estop")
        self._reset = self.create_client(Trigger, "/vla/safety/reset")

    def instruct(self, text: str) -> None:
        """Ask the policy for `text`; empty text ends the run."""
        self._instruction.publish(String(data=text))

    def stop_now(self) -> None:
        """Latch the emergency stop."""
        self._estop.call_async(SetBool.Request(data=True))

    def release_and_reset(self) -> None:
        """Release the emergency stop and end the latched stop."""
        released = self._estop.call_async(SetBool.Request(data=False))
        released.add_done_callback(lambda _: self._reset.call_async(Trigger.Request()))


class Window:
    """The Tk side; everything in it runs in the main thread."""

    def __init__(self, node: ConsoleNode) -> None:
        self._node = node
        self._root = tk.Tk()
        self._root.title(f"{node.contract.name}: {', '.join(node.contract.cameras)}")
        self._photos: dict[str, tk.PhotoImage] = {}
        self._views = {name: tk.Label(self._root) for name in node.contract.cameras}
        for column, view in enumerate(self._views.values()):
            view.grid(row=0, column=column, padx=4, pady=4)
        columns = max(1, len(self._views))
        self._policy = tk.Label(self._root, anchor="w", font=("TkDefaultFont", 12))
        self._safety = tk.Label(self._root, anchor="w", font=("TkDefaultFont", 12, "bold"))
        self._policy.grid(row=1, column=0, columnspan=columns, sticky="ew", padx=8)
        self._safety.grid(row=2, column=0, columnspan=columns, sticky="ew", padx=8)
        self._controls().grid(row=3, column=0, columnspan=columns, sticky="ew", padx=8, pady=8)

    def show(self) -> None:
        """Until the window is closed or ROS is shut down."""
        self._refresh()
        self._root.mainloop()

    def _controls(self) -> tk.Frame:
        frame = tk.Frame(self._root)
        entry = tk.Entry(frame, font=("TkDefaultFont", 13))
        entry.pack(side="left", fill="x", expand=True)
        entry.bind("<Return>", lambda _: self._node.instruct(entry.get()))
        entry.focus()
        buttons: list[tuple[str, Any]] = [("do it", lambda: self._node.instruct(entry.get())),
                                          ("end", lambda: self._node.instruct("")),
                                          ("E-STOP", self._node.stop_now), ("reset", self._node.release_and_reset)]
        for text, action in buttons:
            tk.Button(frame, text=text, command=action).pack(side="left", padx=3)
        return frame

    def _refresh(self) -> None:
        if not rclpy.ok():
            self._root.destroy()
            return
        for name, message in list(self._node.images.items()):
            self._show_image(name, message)
        policy, safety = self._node.policy, self._node.safety
        self._policy.config(text=describe_policy(policy))
        if safety is not None:
            self._safety.config(text=f"guard {SAFETY_NAMES[safety.state]}: {safety.message}",
                                fg=SAFETY_COLOURS[safety.state])
        self._root.after(REFRESH_MS, self._refresh)

    def _show_image(self, name: str, message: Image | CompressedImage) -> None:
        try:
            image = image_to_array(message, self._node.contract.cameras[name])
        except VlaError as problem:
            self._views[name].config(text=str(problem), image="", wraplength=VIEW_PX)
            return
        self._photos[name] = tk.PhotoImage(data=_as_ppm(image))
        self._views[name].config(image=self._photos[name])


def describe_policy(status: PolicyStatus | None) -> str:
    """One line about what the policy does."""
    if status is None:
        return "policy: not heard yet"
    if status.state == PolicyStatus.RUNNING:
        return f"policy follows '{status.instruction}', {status.inferences} inferences, model {status.model_ms:.1f} ms"
    if status.state == PolicyStatus.WAITING:
        return f"policy waits: {status.detail}"
    return "policy is ready: type an instruction" if status.state == PolicyStatus.IDLE else "policy is not active"


def _as_ppm(image: NDArray[np.uint8]) -> bytes:
    """The one image format that Tk reads from memory without further libraries."""
    height = round(VIEW_PX * image.shape[0] / image.shape[1])
    shown = cv2.resize(image, (VIEW_PX, height), interpolation=cv2.INTER_LINEAR)
    return b"P6 %d %d 255 " % (VIEW_PX, height) + shown.tobytes()


def main() -> None:
    """Open the window; where that cannot be, say so in one line and leave with code 1."""
    rclpy.init()
    try:
        if tk is None:
            raise VlaError("this Python has no tkinter; install it, e.g. `sudo apt-get install python3-tk`")
        node = ConsoleNode()
        window = _open(node)
    except VlaError as problem:
        rclpy.logging.get_logger("console").error(f"no console: {problem}; or go without: headless:=true")
        sys.exit(1)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = threading.Thread(target=_spin, args=(executor,), daemon=True)
    thread.start()
    with suppress(KeyboardInterrupt):
        window.show()
    rclpy.try_shutdown()
    thread.join(2.0)


def _open(node: ConsoleNode) -> Window:
    try:
        return Window(node)
    except tk.TclError as problem:
        raise VlaError(f"no screen to open a window on ({problem}); set DISPLAY") from None


def _spin(executor: SingleThreadedExecutor) -> None:
    with suppress(ExternalShutdownException):
        executor.spin()


if __name__ == "__main__":
    main()
