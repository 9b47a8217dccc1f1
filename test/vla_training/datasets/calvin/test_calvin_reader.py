"""The CALVIN reader: held to a split that CALVIN's own code wrote; windows with language, or play without."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from make_calvin import calvin_frame, write_calvin

from vla_policy.errors import DataError
from vla_training.datasets.calvin import CalvinSource, open_play, reader
from vla_training.datasets.registry import open_source

GENUINE = Path(__file__).resolve().parents[1] / "fixtures/calvin"
SMALL = {"rgb_static": (20, 24), "rgb_gripper": (8, 8)}


def test_what_calvin_wrote_is_read() -> None:
    data = CalvinSource(GENUINE / "training")
    expected = json.loads((GENUINE / "expected.json").read_text())
    assert data.spec.rate_hz == 30.0
    assert data.spec.cameras == {"rgb_static": (200, 200), "rgb_gripper": (84, 84)}
    shapes = {name: column.shape for name, column in data.spec.columns.items()}
    assert shapes == {"actions": (7,), "rel_actions": (7,), "robot_obs": (15,), "scene_obs": (24,)}
    assert len(data.episodes) == len(expected["annotations"]) == 3
    for number, annotation in enumerate(expected["annotations"]):
        first, last = annotation["window"]
        episode = data.episodes[number]
        assert episode.instructions == (annotation["sentence"],) and episode.task == annotation["task"]
        assert episode.length == last - first + 1 and episode.extra["scene"] == "calvin_scene_D"
        frames = [expected["frames"][f"episode_{frame:07d}.npz"] for frame in range(first, last + 1)]
        for name, values in data.columns(number).items():
            assert np.array_equal(values, [frame[name] for frame in frames]), name
        order = np.array([episode.length - 1, 0, 2, 2])
        for camera in data.spec.cameras:
            means = data.images(number, camera, order).mean((1, 2))
            assert np.allclose(means, [frames[i][camera] for i in order], atol=1e-9), camera


def test_relative_actions_are_those_of_the_states() -> None:
    """The fixture holds physics, not noise: a recorded action is the step to the next state, clipped and scaled."""
    columns = open_play(GENUINE / "training").columns(0)
    step = columns["robot_obs"][1:, :3] - columns["robot_obs"][:-1, :3]
    assert np.allclose(columns["rel_actions"][:-1, :3], np.clip(step, -0.02, 0.02) / 0.02, atol=1e-6)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "training"
    return write_calvin(folder, (20, 12), ((2, 9), (5, 14), (21, 30)), first=358482, sizes=SMALL)


def test_windows_may_overlap_and_say_what_was_recorded_in_one_go(root: Path) -> None:
    data = CalvinSource(root)
    assert [episode.length for episode in data.episodes] == [8, 10, 10]
    assert [episode.extra["play_episode"] for episode in data.episodes] == [0, 0, 1]
    expected = [calvin_frame(358482 + 5 + i, SMALL) for i in range(10)]
    assert np.array_equal(data.columns(1, ["robot_obs"])["robot_obs"], [frame["robot_obs"] for frame in expected])
    images = data.images(1, "rgb_gripper", np.array([9, 0]))
    assert np.array_equal(images, [expected[9]["rgb_gripper"], expected[0]["rgb_gripper"]])


def test_play_is_whole_and_says_nothing(root: Path) -> None:
    data = open_source(root, "calvin_play")
    assert [episode.length for episode in data.episodes] == [20, 12]
    assert all(episode.instructions == () for episode in data.episodes)
    assert data.spec.fingerprint != CalvinSource(root).spec.fingerprint


def test_the_folder_of_the_data_set_stands_for_its_training_split(root: Path) -> None:
    assert CalvinSource(root.parent).root == root
    assert CalvinSource(root.parent).spec == CalvinSource(root).spec


def test_a_pickled_copy_reads_the_same(root: Path) -> None:
    data = pickle.loads(pickle.dumps(CalvinSource(root)))
    assert np.array_equal(data.columns(2)["actions"][0], calvin_frame(358482 + 21, SMALL)["actions"])


def test_only_frames_and_arrays_that_are_asked_for_are_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, read = CalvinSource(root), []
    load = reader.load_npz
    monkeypatch.setattr(
        reader, "load_npz", lambda path, names: (read.append((path.stem, *names)), load(path, names))[1]
    )
    data.images(0, "rgb_static", np.array([3, 1, 3]))
    assert read == [("episode_0358485", "rgb_static"), ("episode_0358487", "rgb_static")]


def frame_of(root: Path, episode: int, frame: int) -> Path:
    start = CalvinSource(root).episodes[episode].extra["first_frame"]
    return root / f"episode_{start + frame:07d}.npz"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("rgb_static.npy")
    data = bytearray(path.read_bytes())
    data[place.header_offset + place.compress_size // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def drop(path: Path) -> None:
    np.savez_compressed(path, **{name: array for name, array in calvin_frame(0, SMALL).items() if name != "rgb_static"})


def shrink(path: Path) -> None:
    np.savez_compressed(path, **calvin_frame(0, {"rgb_static": (10, 10)}))


def objects(path: Path) -> None:
    np.savez_compressed(path, rgb_static=np.array([{"a": 1}], dtype=object))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: path.unlink(), "no such file; download or record it again"),
        (cut, r"not a readable \.npz file .*; it is cut off or corrupt"),
        (flip, r"not a readable \.npz file .*; it is cut off or corrupt"),
        (drop, "no array rgb_static in it; it has actions"),
        (objects, "it holds pickled objects, expected numbers"),
        (shrink, r"rgb_static of its frame 1 has shape \[10, 10, 3\], expected \[20, 24, 3\]"),
    ],
)
def test_a_bad_frame_is_named_with_its_episode(tmp_path: Path, harm: Callable[[Path], None], said: str) -> None:
    root = write_calvin(tmp_path / "training", (12,), ((2, 5),), sizes=SMALL)
    path = frame_of(root, 0, 3)
    harm(path)
    data = CalvinSource(root)
    assert len(data.images(0, "rgb_static", np.array([0, 2]))) == 2
    with pytest.raises(DataError, match=said) as problem:
        data.images(0, "rgb_static", np.array([2, 3]))
    assert "episode_0000002.npz to 0000005" in str(problem.value)


def test_missing_parts_of_a_split_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no ep_start_end_ids\.npy in it; expected a split of CALVIN's data"):
        CalvinSource(tmp_path)
    root = write_calvin(tmp_path / "training", (12,), ((2, 5),), sizes=SMALL)
    (root / "lang_annotations/auto_lang_ann.npy").rename(root / "auto_lang_ann.npy")
    assert CalvinSource(root).episodes[0].length == 4  # where older downloads have it
    (root / "auto_lang_ann.npy").unlink()
    with pytest.raises(DataError, match=r"no lang_annotations/auto_lang_ann\.npy in it; without language"):
        CalvinSource(root)
    assert len(open_play(root).episodes) == 1
    np.save(root / "ep_start_end_ids.npy", np.zeros((2, 3)))
    with pytest.raises(DataError, match=r"ep_start_end_ids\.npy: expected first and last frame of each episode"):
        open_play(root)


@pytest.mark.parametrize(
    ("annotations", "said"),
    [
        ({"language": {"ann": ["a"], "task": ["b", "c"]}, "info": {"indx": [(0, 3)]}}, "as many of each"),
        ({"language": {"ann": ["a"], "task": ["b"]}}, "as many of each; got KeyError"),
        (["no", "annotations"], "as many of each; got "),
        (
            {"language": {"ann": ["a"], "task": ["b"]}, "info": {"indx": [(8, 13)]}},
            r"window 8 to 13 \('b'\) lies in no ep",
        ),
        ({"language": {"ann": [], "task": []}, "info": {"indx": []}}, "no annotation in it"),
    ],
)
def test_annotations_that_do_not_fit_are_refused(tmp_path: Path, annotations: object, said: str) -> None:
    root = write_calvin(tmp_path / "training", (12,), ((2, 5),), sizes=SMALL)
    np.save(root / "lang_annotations/auto_lang_ann.npy", np.array(annotations, dtype=object))
    with pytest.raises(DataError, match=said):
        CalvinSource(root)


def test_unknown_names_are_met_with_the_nearest(root: Path) -> None:
    data = CalvinSource(root)
    with pytest.raises(DataError, match=r"no camera 'rgb_statik'; did you mean 'rgb_static'"):
        data.images(0, "rgb_statik", np.array([0]))
    with pytest.raises(DataError, match=r"no column 'rel_action'; did you mean 'rel_actions'"):
        data.columns(0, ["rel_action"])
    with pytest.raises(DataError, match="got frames .*, expected some of 0 to 7"):
        data.images(0, "rgb_static", np.array([8]))
