"""Fine-tuning in one line: rules are chosen by size and said, a policy learns new words, what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from bundles import make_bundle
from make_bags import Motion, record_episode, tabletop

from vla_policy.checkpoint import Bundle, load_bundle, save_bundle
from vla_policy.contract import load_contract
from vla_policy.errors import ConfigError
from vla_policy.policy import Policy
from vla_policy.resources import find_contract, find_policy
from vla_training.config import load_training_file
from vla_training.finetune import _parser, launch_style, main
from vla_training.finetuning import recipe
from vla_training.finetuning.amount import Amount
from vla_training.finetuning.recipe import Wishes, choose_recipe

SENTENCE = "fetch the red block"
NEW = Amount("new", 40, 2000, 500, ("bring",), (SENTENCE,), ())
OLD = Amount("old", 100, 8000, 2000, ("lift",), ("lift the red block",), ())


def shipped() -> Bundle:
    return load_bundle(find_policy("tabletop"))
