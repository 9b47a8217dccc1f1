"""The page docs/training-data.md: its examples are valid, its presets and forms are those that there are."""

import re
from pathlib import Path

import pytest
import yaml

from vla_policy.errors import ConfigError
from vla_policy.strict import parse
from vla_training.datasets.config import RotationForm, Source
from vla_training.datasets.presets import PRESETS
from vla_training.datasets.registry import READERS

PAGE = (Path(__file__).resolve().parents[3] / "docs/training-data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_examples_are_valid(block: str) -> None:
    listed = block[block.index("    - ") :]
    sources = yaml.safe_load(listed)
    assert sources
    for source in sources:
        assert parse(Source, source, "docs/training-data.md", ConfigError).path


def test_names_on_the_page_are_those_of_the_code() -> None:
    assert len(BLOCKS) == 4
    assert all(f"`{preset}`" in PAGE for preset in PRESETS)
    assert all(f"`{form}`" in PAGE for form in RotationForm.__args__ if "euler" not in form)
    for format, word in {"lerobot": "LeRobot", "calvin": "CALVIN", "rlds": "RLDS", "recorded": "recorded bags"}.items():
        assert format in READERS and f"| {word}" in PAGE
