"""In: a text that says true or false. Out: whether an action is executed."""

from __future__ import annotations

from ._refuse import missing_names
from .action import Condition, LaunchContext, SomeSubstitutionsType, perform


class InvalidConditionExpressionError(Exception):
    """The text is neither true nor false."""


def _is_true(context: LaunchContext, expression: SomeSubstitutionsType) -> bool:
    text = perform(context, expression).strip().lower()
    if text in ("true", "1"):
        return True
    if text in ("false", "0"):
        return False
    raise InvalidConditionExpressionError(f"got '{text}' as a condition, expected one of true, 1, false, 0")


class IfCondition(Condition):
    """True for 'true' and '1'."""

    def __init__(self, predicate_expression: SomeSubstitutionsType) -> None:
        super().__init__(predicate=lambda context: _is_true(context, predicate_expression))


class UnlessCondition(Condition):
    """True for 'false' and '0'."""

    def __init__(self, predicate_expression: SomeSubstitutionsType) -> None:
        super().__init__(predicate=lambda context: not _is_true(context, predicate_expression))


__all__ = ["IfCondition", "InvalidConditionExpressionError", "UnlessCondition"]
__getattr__ = missing_names("launch.conditions", __all__)
