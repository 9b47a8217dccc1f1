"""A count and a seed in, pictures of random tabletops with the place of everything nameable out.

`ros2 run vla_training scenes config/training/tabletop.yaml --count 20000 --seed 7 --output outputs/scenes`
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from sim_bridges.tabletop.motion import Hand
from sim_bridges.tabletop.sim import TabletopSim
from vla_policy.contract import RobotContract, load_contract
from vla_policy.errors import VlaError
from vla_policy.model.config import ModelConfig, load_model_file
from vla_policy.observation.proprioception import proprioception
from vla_policy.observation.resize import resize_image
from vla_policy.resources import find_contract
from vla_training.console import refuse
from vla_training.tabletop.grounding import Scenes, save_scenes
from vla_training.tabletop.sentences import Sentence, all_sentences
from vla_training.tabletop.workers import workers

HELD_SHARE = 0.4
BATCH = (
    250  # scenes per piece of work; each piece has its own random stream, so the worker count changes nothing
)


def make_scenes(
    folder: Path, contract: RobotContract, config: ModelConfig, count: int, seed: int, worker_count: int,
    held_share: float = HELD_SHARE,
) -> Scenes:
    """Render `count` scenes into `folder`; images, states and places as `Scenes` describes them.

    held_share: of the scenes, with a block in the hand, which are about where it is to go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [
        (folder, contract, config, start, min(BATCH, count - start), seed, held_share)
        for start in range(0, count, BATCH)
    ]
    images = open_memmap(
        folder / "images.npy",
        "w+",
        np.uint8,
        (count, len(config.cameras), config.image_size, config.image_size, 3),
    )
    del images  # the workers write into the file
    with workers(worker_count) as (pool, _):
        done = list(track(pool.map(_render_piece, pieces), "rendering scenes", len(pieces)))
    sentences = all_sentences()
    scenes = Scenes(
        np.load(folder / "images.npy", mmap_mode="r"),
        np.concatenate([state for state, _, _ in done]),
        np.concatenate([fitting for _, _, fitting in done]),
        np.concatenate([place for _, place, _ in done]),
        tuple(sentence.text for sentence in sentences),
        np.empty((0, 0), np.int64),
        np.empty((0, 0), bool),
    )
    save_scenes(folder, scenes)
    return scenes


def _render_piece(
    piece: tuple[Path, RobotContract, ModelConfig, int, int, int, float],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Render scenes [start, start + count) into the shared file; returns states (count, P), places (count, R, 3) and
    sentences (count, R), as `Scenes` has them.
    """
    folder, contract, config, start, count, seed, held_share = piece
    out = np.load(folder / "images.npy", mmap_mode="r+")
    rng = np.random.default_rng([seed, start])
    sim, sentences = TabletopSim(), all_sentences()
    hand = Hand(sim)
    states, places, fitting = [], [], []
    for row in range(start, start + count):
        sim.scatter(rng, held_share)
        observation = sim.observe()
        out[row] = stack_images(observation.images, config)
        states.append(proprioception(contract, observation, config.proprioception_joints))
        positions, held = sim.positions(), hand.held()
        chosen = _fitting(sentences, held)
        fitting.append(np.pad(chosen, (0, len(sentences) - len(chosen)), constant_values=-1))
        where = np.zeros((len(sentences), 3))
        where[:len(chosen)] = [sentences[index].place(positions, held) for index in chosen]
        places.append(where)
    sim.close()
    out.flush()
    return np.stack(states).astype(np.float32), np.stack(places).astype(np.float32), np.stack(fitting)


def _fitting(sentences: Sequence[Sentence], held: str | None) -> NDArray[np.int64]:
    """Indices of the sentences to learn from: all, but with a block in the hand those that say where it is to go."""
    about_held = [index for index, sentence in enumerate(sentences)
                  if held and sentence.goal.destination and sentence.goal.colour == held]
    return np.array(about_held or range(len(sentences)), np.int64)


def stack_images(images: dict[str, NDArray[np.uint8]], config: ModelConfig) -> NDArray[np.uint8]:
    """The cameras of an observation at the model's size, uint8 (V, S, S, 3)."""
    return np.stack([resize_image(images[camera], config.image_size) for camera in config.cameras])


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="scenes", description=__doc__)
    parser.add_argument(
        "config", type=Path, help="config/training/*.yaml, for its model's cameras and image size"
    )
    parser.add_argument("--robot", default="tabletop", help="robot contract: a name or a path")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--held", type=float, default=HELD_SHARE, help="share of the scenes with a block in the hand")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    console = Console()
    try:
        make_scenes(
            options.output,
            load_contract(find_contract(options.robot)),
            load_model_file(options.config).model,
            options.count,
            options.seed,
            options.workers,
            options.held,
        )
    except VlaError as problem:
        refuse(console, problem)
        return 1
    console.print(f"wrote {options.count} scenes to {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
