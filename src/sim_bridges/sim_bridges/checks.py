"""What a simulator is asked for in, nothing out, or one clear refusal: what all simulators refuse alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from vla_policy.contract import ActionKind, RobotContract
from vla_policy.errors import ContractError, VlaError, nearest
from vla_policy.types import Command


@dataclass(frozen=True, slots=True)
class Offer:
    """What a simulator has, for a contract to be held against.

    cameras: the contract's name -> width and height [pixels]. advice: the file to use, at the end of each refusal.
    """

    simulator: str
    frame: str
    joints: tuple[str, ...]
    rate_hz: float
    period_ns: int
    kinds: tuple[ActionKind, ...]
    cameras: Mapping[str, tuple[int, int]]
    advice: str


def check_contract(contract: RobotContract, offer: Offer) -> None:
    """Raises: ContractError naming what the simulator does not have, with both values."""
    for what, got, fits, expected in (
        ("base_frame", contract.base_frame, contract.base_frame == offer.frame, offer.frame),
        ("joints.names", list(contract.joints.names), contract.joints.names == offer.joints, list(offer.joints)),
        ("pose", contract.pose, contract.pose is not None, "a topic for the tool's pose"),
        ("control_rate_hz", contract.control_rate_hz, contract.control_dt_ns == offer.period_ns, offer.rate_hz),
        ("action.kind", contract.action.kind, contract.action.kind in offer.kinds, " or ".join(offer.kinds)),
        ("action.gripper", contract.action.gripper, contract.action.gripper is not None, "a gripper"),
    ):
        if not fits:
            raise ContractError(f"{contract.name}: {what}: got {got}, expected {expected}; use {offer.advice}")
    for name, camera in contract.cameras.items():
        if name not in offer.cameras:
            raise ContractError(f"{contract.name}: cameras: got '{name}'; {nearest(name, offer.cameras)}")
        width, height = offer.cameras[name]
        if (camera.width, camera.height, camera.encoding, camera.compressed) != (width, height, "rgb8", False):
            raise ContractError(
                f"{contract.name}: camera {name}: got {camera.width}x{camera.height} {camera.encoding}"
                f"{' compressed' if camera.compressed else ''}, expected {width}x{height} rgb8, as {offer.simulator} "
                f"renders it; use {offer.advice}")


def check_seed(seed: int) -> None:
    """Raises: VlaError for a negative seed."""
    if seed < 0:
        raise VlaError(f"seed: got {seed}, expected 0 or more")


def check_task(simulator: str, task: str, known: Iterable[str]) -> None:
    """Raises: VlaError for a task that is not among `known`, naming the nearest."""
    known = tuple(known)
    if task not in known:
        raise VlaError(f"{simulator}: got task '{task}'; {nearest(task, known)}")


def check_duration(duration_ns: int, period_ns: int, whose: str) -> None:
    """Raises: VlaError for a duration that is no positive multiple of a period. whose: the period's, in words."""
    if duration_ns <= 0 or duration_ns % period_ns:
        raise VlaError(f"advance: got {duration_ns} ns, expected a positive multiple of {period_ns} ns, {whose}")


def check_command(command: Command, size: int) -> None:
    """Raises: VlaError for an arm command that is not `size` finite numbers, or a gripper that is no number."""
    if np.shape(command.arm) != (size,) or not np.isfinite(command.arm).all():
        raise VlaError(f"advance: got arm command {command.arm!r}, expected {size} finite numbers; "
                       "see the contract's action kind")
    if command.gripper is not None and not np.isfinite(command.gripper):
        raise VlaError(f"advance: got gripper {command.gripper!r}, expected 0 (closed) .. 1 (open)")
