"""A model's normalised chunk in, rows in contract units out, and back for training.

The gripper is a probability, never un-normalised: it changes state only when the probability passes one half
by the hysteresis.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vla_policy.contract import RobotContract
from vla_policy.errors import ActionError, BundleError
from vla_policy.normalizer import Normalizer


class ActionCodec:
    """Between chunks of a contract (columns `contract.action_names`) and what a model is trained on.

    normalizer: fitted over the arm columns. hysteresis: of the gripper's probability, 0 to below 0.5.
    """

    def __init__(self, contract: RobotContract, normalizer: Normalizer, hysteresis: float = 0.1) -> None:
        """Raises: BundleError where the normalizer is not one of this contract's arm columns."""
        self.has_gripper = contract.action.gripper is not None
        self.names = contract.action_names
        self.arm_size = len(self.names) - self.has_gripper
        if normalizer.names != self.names[: self.arm_size]:
            raise BundleError(f"action normalizer: got columns {list(normalizer.names)}, expected the arm "
                              f"columns of contract '{contract.name}' {list(self.names[: self.arm_size])}; "
                              "train for this robot")
        self.normalizer = normalizer
        self.hysteresis = hysteresis

    def encode(self, values: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Rows (..., A) in contract units -> arm (..., arm_size) in [-1, 1] and gripper (...) in [0, 1]."""
        values = np.asarray(values, np.float64)
        gripper = np.clip(values[..., -1], 0.0, 1.0).astype(np.float32) if self.has_gripper else None
        return self.normalizer.apply(values[..., : self.arm_size]), gripper

    def decode(self, arm: NDArray[np.floating], gripper_logits: NDArray[np.floating] | None,
               gripper_before: float | None) -> NDArray[np.float64]:
        """A normalised chunk -> float64 (K, A) in contract units.

        arm: (K, arm_size). gripper_logits: (K,), positive is open, or None without a gripper. gripper_before:
        0 or 1, its state before the first row; None where unknown. Raises: ActionError for numbers that are
        not finite.
        """
        self._check_finite(arm, gripper_logits)
        rows = self.normalizer.invert(arm)
        if gripper_logits is None:
            return rows
        return np.column_stack([rows, self._switch(gripper_logits, gripper_before)])

    def _switch(self, logits: NDArray[np.floating], before: float | None) -> NDArray[np.float64]:
        """0 closed or 1 open for every row; inside the hysteresis band the gripper stays as it was."""
        states = np.empty(len(logits))
        state = before
        for row, logit in enumerate(logits):
            open_probability = 1.0 / (1.0 + np.exp(-np.clip(float(logit), -50.0, 50.0)))
            if state is None or abs(open_probability - 0.5) > self.hysteresis:
                state = float(open_probability > 0.5)
            states[row] = state
        return states

    def _check_finite(self, arm: NDArray[np.floating], logits: NDArray[np.floating] | None) -> None:
        columns = arm if logits is None else np.column_stack([arm, logits])
        bad = np.argwhere(~np.isfinite(columns))
        if len(bad):
            row, column = bad[0]
            raise ActionError(f"action chunk: row {row}, column '{self.names[column]}' is "
                              f"{columns[row, column]}, expected a number; nothing is sent; check the "
                              "observation and the bundle's weights")
