"""docs/new-backbone.md in; out: its adapter, registered and configured as the page says, trains, loads and drives.

test/ros/test_backbones_drive.py lets it drive through the nodes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from policies import CONFIG
from test_matrix import EPISODE_TASK, LENGTH, SENTENCES, SIDE, bundle_of, check_streaming, train_two_steps

from sim_bridges.rollout import rollout
from sim_bridges.tabletop import TabletopSim
from vla_policy.checkpoint import load_bundle, save_bundle
from vla_policy.errors import ConfigError
from vla_policy.model.config import ModelFile
from vla_policy.model.registry import BACKBONES
from vla_policy.policy import Policy
from vla_policy.strict import parse

PAGE = (CONFIG.parent / "docs" / "new-backbone.md").read_text(encoding="utf-8")
ADAPTER_LINES = 40


def block(kind: str) -> str:
    """The page's code of one kind, without its indent."""
    found = re.search(rf"^   ```{kind}\n(.*?)^   ```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"the page has no block of {kind}"
    return re.sub(r"^   ", "", found.group(1), flags=re.MULTILINE)


def registered_line() -> tuple[str, str]:
    """Step 2 of the page: the name of its backbone, and what it stands for where the adapter is not in our package."""
    name, target = re.fullmatch(r'"(.+)": "vla_policy\.model\.backbones\.(.+)",\n', block("text")).groups()
    return name, target


@contextmanager
def page_followed(folder: Path) -> Iterator[str]:
    """Steps 1 and 2 of the page, with the adapter in `folder`: the name of the new backbone."""
    name, target = registered_line()
    module = target.partition(":")[0]
    (folder / f"{module}.py").write_text(block("python"))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setitem(BACKBONES, name, target)
        yield name
    sys.modules.pop(module, None)


def twin_file() -> ModelFile:
    """Step 3 of the page, with the twin, and small."""
    data = yaml.safe_load(block("yaml"))
    data["model"] |= {"backbone_options": {"weights": "random-tiny"}, "image_size": SIDE,
                      "text_length": LENGTH, "history_length": 2, "action_chunk_size": 2, "execute_rows": 2,
                      "proprioception_joints": ["finger_joint"]}
    return parse(ModelFile, data, "page", ConfigError)


def test_the_page_adds_a_backbone(tmp_path: Path) -> None:
    with page_followed(tmp_path) as name:
        assert parse(ModelFile, yaml.safe_load(block("yaml")), "page", ConfigError).model.backbone == name
        bundle = bundle_of(twin_file())
        ids, mask = bundle.tokenizer.encode_batch([SENTENCES[0]], LENGTH)
        text = torch.from_numpy(ids), torch.from_numpy(mask)
        before, after = train_two_steps(bundle.model, text)
        assert after < before
        save_bundle(tmp_path / "bundle", bundle)
        loaded = load_bundle(tmp_path / "bundle")
    check_streaming(bundle.model, loaded.model, text)
    result = rollout(TabletopSim(), Policy(loaded), loaded.contract, EPISODE_TASK, seed=0, time_limit_s=0.4)
    assert result.reason == "TIME_LIMIT", result.message


def test_the_adapter_stays_small() -> None:
    assert len(block("python").splitlines()) <= ADAPTER_LINES
