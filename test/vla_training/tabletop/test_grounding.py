"""The grounding stage: scenes with a place for every sentence, a model that learns to point, whole files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fabricated import tabletop, write_config, write_dataset
from rich.console import Console

from vla_policy.checkpoint import Bundle, save_bundle
from vla_policy.errors import ConfigError
from vla_policy.model.config import ModelFile, load_model_file
from vla_policy.model.tokenizer import Tokenizer
from vla_policy.model.vla import build_model
from vla_policy.normalizer import Normalizer
from vla_training.tabletop.grounding import PlaceScale, Scenes, load_scenes, scene_batch
from vla_training.tabletop.pretrain import PretrainOptions, load_grounding, load_start, pretrain, save_grounding
from vla_training.tabletop.scenes import make_scenes
from vla_training.tabletop.sentences import all_sentences
from vla_training.training.run import Run

QUIET = Console(quiet=True)
OPTIONS = PretrainOptions(steps=2, batch_size=8, precision="fp32")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return load_model_file(write_config(tmp_path_factory.mktemp("config") / "run.yaml", Path("none")))


@pytest.fixture(scope="module")
def scenes_folder(tmp_path_factory: pytest.TempPathFactory, file: ModelFile) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    make_scenes(folder, tabletop(), file.model, count=12, seed=3, worker_count=1)
    return folder


def test_scenes_come_back_with_a_place_for_every_sentence(scenes_folder: Path) -> None:
    scenes = load_scenes(scenes_folder)
    assert scenes.images.shape == (12, 2, 32, 32, 3)
    assert scenes.sentences == tuple(sentence.text for sentence in all_sentences())
    assert scenes.place.shape == (12, len(scenes.sentences), 3)
    assert len(np.unique(scenes.images.reshape(12, -1), axis=0)) == 12


def places_of(scenes: Scenes, text: str) -> np.ndarray:
    """Where a sentence sends the hand, a row for each scene that asks it; the others are NaN."""
    here = scenes.sentence == scenes.sentences.index(text)
    return np.where(here.any(1)[:, None], scenes.place[np.arange(len(scenes)), here.argmax(1)], np.nan)


def test_left_and_right_pushes_are_about_opposite_sides(scenes_folder: Path) -> None:
    scenes = load_scenes(scenes_folder)
    left, right, lift = (
        places_of(scenes, text)
        for text in ("push the red block left", "push the red block right", "lift the red block")
    )
    asked = np.isfinite(lift).all(1)
    assert asked.any()
    assert np.allclose((left - lift)[asked], [0, 0.05, 0], atol=1e-6)
    assert np.allclose((right - lift)[asked], [0, -0.05, 0], atol=1e-6)


def test_with_a_block_in_the_hand_only_its_destination_is_asked(scenes_folder: Path) -> None:
    scenes = load_scenes(scenes_folder)
    counts = (scenes.sentence >= 0).sum(1)
    holding = counts < len(scenes.sentences)
    assert holding.any() and not holding.all()
    for row in np.flatnonzero(holding):
        texts = [scenes.sentences[index] for index in scenes.sentence[row, : counts[row]]]
        assert len(texts) == 18 and len({text.split()[2] for text in texts}) == 1  # three phrases of six destinations


def test_a_batch_pairs_each_sentence_with_its_place(scenes_folder: Path, file: ModelFile) -> None:
    grounded, _ = pretrain(file, tabletop(), load_scenes(scenes_folder), OPTIONS, QUIET)
    scale = PlaceScale.of(tabletop())
    scenes = load_scenes(scenes_folder).for_model(grounded.state_normalizer, grounded.tokenizer, 8, scale)
    batch = scene_batch(scenes, 20, np.random.default_rng(0))
    images, _, ids, _ = batch.inputs
    for row in range(20):
        scene = next(i for i in range(12) if np.array_equal(scenes.images[i], images[row]))
        sentence = next(
            i for i in range(len(scenes.sentences)) if np.array_equal(scenes.text_ids[i], ids[row])
        )
        column = np.flatnonzero(scenes.sentence[scene] == sentence).item()
        assert np.array_equal(batch.place[row], scenes.place[scene, column])


def test_pointing_gets_better(scenes_folder: Path, file: ModelFile) -> None:
    scenes = load_scenes(scenes_folder)
    options = [replace(OPTIONS, steps=steps, learning_rate=3e-3) for steps in (1, 60)]
    (_, before), (_, after) = (pretrain(file, tabletop(), scenes, chosen, QUIET) for chosen in options)
    assert after["mean_error_m"] < before["mean_error_m"]


def test_a_grounding_comes_back_and_training_starts_from_it(
    scenes_folder: Path, file: ModelFile, tmp_path: Path
) -> None:
    grounded, report = pretrain(file, tabletop(), load_scenes(scenes_folder), OPTIONS, QUIET)
    save_grounding(tmp_path / "grounding", grounded, {"report": report})
    weights = load_grounding(tmp_path / "grounding").model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in grounded.model.state_dict().items())
    write_dataset(tmp_path / "set")
    config = write_config(
        tmp_path / "run.yaml",
        tmp_path / "set",
        grounding=str(tmp_path / "grounding"),
        scenes=str(scenes_folder),
        scene_batch_size=2,
    )
    run = Run(config, "tabletop", tmp_path / "run", "cpu")
    assert all(torch.equal(value, weights[name]) for name, value in run.start.model.state_dict().items())
    assert "scene" in next(run.trainer.run()).losses


def test_going_on_from_a_bundle_learns_further_words_and_fits_the_states_anew(
    scenes_folder: Path, file: ModelFile, tmp_path: Path
) -> None:
    grounded, _ = pretrain(file, tabletop(), load_scenes(scenes_folder), OPTIONS, QUIET)
    fewer = Tokenizer.build(["open the drawer"])
    model = build_model(file.model, tabletop(), fewer.vocabulary_size)
    action = Normalizer.fit(np.random.default_rng(0).normal(size=(50, 6)), tabletop().action_names[:6])
    save_bundle(tmp_path / "bundle", Bundle(model, file, tabletop(), grounded.state_normalizer, action, fewer))
    start = load_start(tmp_path / "bundle")
    assert start.state_normalizer is None
    second, _ = pretrain(file, tabletop(), load_scenes(scenes_folder), OPTIONS, QUIET, start=start)
    assert second.tokenizer.encode("open the drawer", 8)[0].tolist() == fewer.encode("open the drawer", 8)[0].tolist()
    assert second.tokenizer.vocabulary_size == grounded.tokenizer.vocabulary_size
    assert second.state_normalizer == grounded.state_normalizer


def test_going_on_keeps_tokenizer_and_normaliser(scenes_folder: Path, file: ModelFile) -> None:
    first, _ = pretrain(file, tabletop(), load_scenes(scenes_folder), OPTIONS, QUIET)
    second, _ = pretrain(file, tabletop(), load_scenes(scenes_folder), OPTIONS, QUIET, start=first)
    assert second.tokenizer is first.tokenizer and second.state_normalizer is first.state_normalizer


@pytest.mark.parametrize("load", [load_scenes, load_grounding])
def test_an_empty_folder_is_refused(tmp_path: Path, load) -> None:
    with pytest.raises(ConfigError, match="make"):
        load(tmp_path)


def test_the_scale_is_that_of_the_workspace() -> None:
    scale = PlaceScale.of(tabletop())
    assert scale.unit_m == pytest.approx(0.25)
    assert scale.apply(np.array([0.75, 0.25, 0.306])) == pytest.approx([1.0, 1.0, 0.0], abs=1e-5)


def test_scenes_can_be_cut(scenes_folder: Path) -> None:
    scenes: Scenes = load_scenes(scenes_folder).part(slice(2, 5))
    assert len(scenes) == 3
