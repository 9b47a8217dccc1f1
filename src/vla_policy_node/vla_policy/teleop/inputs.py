"""Messages of a device's topics in; since when all of them speak, and what is wrong with one of them, out."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from vla_policy.errors import DeviceError


class Inputs:
    """The topics of one device. repeating: those that speak on and on, whose silence therefore means something."""

    def __init__(self, repeating: Iterable[str]) -> None:
        self._heard_ns: dict[str, int | None] = dict.fromkeys(repeating)
        self._mistakes: dict[str, str] = {}

    def take(self, topic: str, read: Callable[[], None], steady_ns: int) -> None:
        """Let `read` take a message of `topic`; a DeviceError it raises stays until the topic can be read again."""
        try:
            read()
        except DeviceError as problem:
            self._mistakes[topic] = str(problem)
        else:
            self._mistakes.pop(topic, None)
        if topic in self._heard_ns:
            self._heard_ns[topic] = steady_ns

    @property
    def heard_ns(self) -> int | None:
        """Steady time of the topic that was silent for longest; None until each one spoke."""
        times = list(self._heard_ns.values())
        return None if None in times else min(times)

    @property
    def mistake(self) -> str:
        """What is wrong with the messages, empty for nothing."""
        return "; ".join(self._mistakes.values())
