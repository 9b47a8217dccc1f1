"""A refusal in, its text on the terminal out, word for word."""

from __future__ import annotations

from rich.console import Console


def refuse(console: Console, problem: Exception) -> None:
    """Print what stands in the way. Square brackets in it are text, not markup, and long paths stay whole."""
    console.print(str(problem), style="red", markup=False, highlight=False, soft_wrap=True)
