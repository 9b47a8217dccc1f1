"""A mistake in, one clear sentence out: what was got, what was expected, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from enum import StrEnum
from typing import TypeVar

Choice = TypeVar("Choice", bound=StrEnum)


class VlaError(ValueError):
    """A refusal meant for the user; its text stands on its own without a traceback."""


class ContractError(VlaError):
    """A robot contract is malformed, or something does not match it."""


class ConfigError(VlaError):
    """A configuration file is malformed."""


class BundleError(VlaError):
    """A checkpoint bundle is missing a part, was altered, or does not fit its use."""


class DataError(VlaError):
    """Recorded data is missing, truncated, corrupt, or does not fit the robot or model."""


class RemoteError(VlaError):
    """A policy server or its client is away, late, or does not understand the other."""


class ObservationError(VlaError):
    """An observation is missing, stale, or of the wrong kind."""


class DeviceError(VlaError):
    """An operator's device sends something else than its mapping says."""


class InstructionError(VlaError):
    """An instruction cannot be read by the policy."""


class EngineError(VlaError):
    """The device cannot run a model: its memory is exhausted."""


class ActionError(VlaError):
    """What a model put out cannot be an action."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt `name`: `did you mean 'x'? known: a, b, x`."""
    known = list(known)
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}known: {', '.join(known) or 'none'}"


def choose(kind: type[Choice], what: str, text: object) -> Choice:
    """The member of `kind` called `text`; `what` asks for it. Raises: ConfigError naming the nearest."""
    if text not in list(kind):
        raise ConfigError(f"{what}: got {text!r}; {nearest(str(text), [str(item) for item in kind])}")
    return kind(text)
