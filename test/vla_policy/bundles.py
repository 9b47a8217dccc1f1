"""A robot and sentences in, an untrained bundle on disk out: what nodes, simulators and evaluation are tested with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from policies import CONFIG, live_model, model_file

from vla_policy.checkpoint import Bundle, save_bundle
from vla_policy.contract import load_contract
from vla_policy.model.tokenizer import Tokenizer
from vla_policy.normalizer import Normalizer
from vla_policy.observation.proprioception import proprioception_names

STEP_M = 0.004  # an untrained policy asks for about so much a row, and as many rad: slow, and never nothing
CHUNK_ROWS = 80  # 4 s of the tabletop: a loaded machine must not run out of rows


def write_bundle(folder: Path, contract: Path | str, sentences: Iterable[str], **changes: object) -> Path:
    """Write a bundle with random weights for a contract (a file, or a name in config/robots); return its folder.

    changes: to the model section of the small model file.
    """
    robot = load_contract(CONFIG / "robots" / f"{contract}.yaml" if isinstance(contract, str) else contract)
    file = model_file(**{"proprioception_joints": [robot.joints.names[-1]], "action_chunk_size": CHUNK_ROWS} | changes)
    tokenizer = Tokenizer.build(list(sentences))
    names = proprioception_names(robot, file.model.proprioception_joints)
    rng = np.random.default_rng(0)
    save_bundle(
        folder,
        Bundle(
            model=live_model(file, robot, tokenizer.vocabulary_size),
            file=file,
            contract=robot,
            tokenizer=tokenizer,
            state_normalizer=Normalizer.fit(rng.normal(size=(50, len(names))), names),
            action_normalizer=Normalizer.fit(rng.uniform(-STEP_M, STEP_M, (50, 6)), robot.action_names[:6]),
        ),
    )
    return folder
