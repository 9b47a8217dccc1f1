"""A refusal is printed word for word: brackets in it are no markup."""

import io

from rich.console import Console

from vla_policy.errors import ConfigError
from vla_training.console import refuse


def test_brackets_of_a_refusal_are_text() -> None:
    text = "adapt.lora[x]: got [/a/path], expected [] of [bold]" + " and so on" * 20
    written = io.StringIO()
    refuse(Console(file=written, width=40), ConfigError(text))
    assert written.getvalue() == text + "\n"
