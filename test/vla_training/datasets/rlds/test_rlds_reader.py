"""RLDS sets that tfds wrote (make_fixtures.py) read as tfds reads them; broken ones are refused by file and record."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from make_rlds import write_records

from vla_policy.errors import DataError
from vla_training.datasets.registry import detect_format, open_source
from vla_training.datasets.rlds import open_rlds
from vla_training.datasets.rlds.tfrecord import records

FIXTURES = Path(__file__).parents[1] / "fixtures" / "rlds"
SETS = {"bridge_dataset": ("train", "val"), "fractal_data": ("train",), "odd_features": ("train",)}
BRIDGE_SHARD = "bridge_dataset-train.tfrecord-00000-of-00002"
# TensorFlow decodes JPEG by a faster, less exact cosine transform than OpenCV.
JPEG_TOLERANCE = 4


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Copies, because an index is written beside the data."""
    return shutil.copytree(FIXTURES, tmp_path / "rlds", ignore=shutil.ignore_patterns(".*"))


@pytest.fixture
def bridge(published: Path) -> Path:
    return published / "bridge_dataset" / "1.0.0"


@pytest.mark.parametrize(("name", "split"), [(name, split) for name, splits in SETS.items() for split in splits])
def test_columns_equal_those_that_tfds_reads(published: Path, name: str, split: str) -> None:
    source = open_rlds(published / name, split)
    expected = json.loads((published / name / "expected.json").read_text())["splits"][split]
    assert [e.length for e in source.episodes] == [len(next(iter(e["steps"].values()))) for e in expected]
    for number, episode in enumerate(expected):
        columns = source.columns(number)
        numbers = {k for k, v in episode["steps"].items() if k not in source.spec.cameras and not _is_text_or_ragged(v)}
        assert set(columns) == numbers
        for column, array in columns.items():
            assert array.dtype == source.spec.columns[column].dtype
            assert array.shape == (source.episodes[number].length, *source.spec.columns[column].shape)
            shown = array[:, 0] if array.shape[1:] == (512,) else array  # of an embedding only one value was noted
            assert shown.tolist() == episode["steps"][column], column


def _is_text_or_ragged(values: list) -> bool:
    return isinstance(values[0], str) or (isinstance(values[0], list) and len({len(value) for value in values}) > 1)


@pytest.mark.parametrize(("name", "split"), [(name, split) for name, splits in SETS.items() for split in splits])
def test_images_equal_those_that_tfds_decodes(published: Path, name: str, split: str) -> None:
    source, expected = open_rlds(published / name, split), np.load(published / name / "expected_images.npz")
    for number, episode in enumerate(source.episodes):
        for camera in source.spec.cameras:
            images = source.images(number, camera, np.array([0, episode.length - 1]))
            wanted = expected[f"{split}:{number}:{camera}"]
            lossless = name == "odd_features"
            assert images.dtype == np.uint8 and images.shape == wanted.shape
            assert np.abs(images.astype(int) - wanted).max() <= (0 if lossless else JPEG_TOLERANCE)


def test_sentences_and_what_is_told_of_an_episode(published: Path) -> None:
    bridge = open_rlds(published / "bridge_dataset").episodes
    fractal, odd = open_rlds(published / "fractal_data").episodes, open_rlds(published / "odd_features").episodes
    assert [e.instructions for e in bridge] == [(f"put the spoon № {i} on the towel",) for i in range(3)]
    assert bridge[1].extra["episode_metadata/episode_id"] == 101
    assert bridge[1].extra["episode_metadata/file_path"] == "/nfs/raw/1.npy"
    assert [e.instructions for e in fractal] == [(f"pick coke can {i}",) for i in range(3)]  # inside the observation
    assert [e.instructions for e in odd] == [("turn 0",), ("turn 1",)]  # of the episode


def test_the_spec_tells_shapes_and_no_rate(published: Path) -> None:
    spec = open_rlds(published / "fractal_data").spec
    assert spec.rate_hz is None and spec.cameras == {"observation/image": (32, 40)}
    assert spec.columns["action/world_vector"].shape == (3,) and spec.columns["is_first"].dtype == "bool"
    assert open_rlds(published / "odd_features").spec.cameras == {"camera": (0, 0)}
    assert detect_format(published / "fractal_data" / "0.1.0") == "rlds"
    assert open_source(published / "fractal_data" / "0.1.0").spec == spec


def test_frames_come_in_the_order_asked(bridge: Path) -> None:
    source = open_rlds(bridge)
    images = source.images(1, "observation/image_1", np.arange(5))
    again = source.images(1, "observation/image_1", np.array([4, 0, 0, 2]))
    np.testing.assert_array_equal(again, images[[4, 0, 0, 2]])
    with pytest.raises(DataError, match=r"episode 1 .*got frames .*expected some of 0 to 4"):
        source.images(1, "observation/image_1", np.array([5]))


def test_only_the_frames_asked_for_are_decoded(bridge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vla_training.datasets.rlds import reader

    decoded = []
    monkeypatch.setattr(reader, "decode_compressed", lambda data: decoded.append(1) or np.zeros((48, 64, 3), np.uint8))
    source = open_rlds(bridge)
    source.columns(0)
    source.images(0, "observation/image_0", np.array([3, 1, 3]))
    assert len(decoded) == 2


def test_the_index_is_built_once_and_anew_for_changed_files(bridge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vla_training.datasets.rlds import index

    first = open_rlds(bridge)
    monkeypatch.setattr(index, "locate", lambda example: pytest.fail("the index was built again"))
    again = open_rlds(bridge)
    assert again.episodes == first.episodes and again.spec.fingerprint == first.spec.fingerprint
    monkeypatch.undo()
    (bridge / BRIDGE_SHARD).write_bytes((bridge / "bridge_dataset-val.tfrecord-00000-of-00002").read_bytes())
    with pytest.raises(DataError, match="got 1 episodes, expected 2"):
        open_rlds(bridge)


def test_a_folder_that_cannot_be_written_leaves_the_index_in_the_cache(
    bridge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (bridge / ".vla_index").write_text("a file where the folder would be")
    assert len(open_rlds(bridge).episodes) == 3
    assert [path.name[:10] for path in (tmp_path / "cache/vla_training/index").iterdir()] == ["rlds-train"]


def test_a_source_goes_to_worker_processes(bridge: Path) -> None:
    source = open_rlds(bridge)
    before = source.images(2, "observation/image_0", np.array([1]))
    other = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(other.images(2, "observation/image_0", np.array([1])), before)


def test_a_flipped_bit_is_told_by_file_and_record(bridge: Path) -> None:
    shard = bridge / BRIDGE_SHARD
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 2 + 8000] ^= 4
    shard.write_bytes(raw)
    with pytest.raises(DataError, match=f"{BRIDGE_SHARD}: record 1 .*data does not match its checksum"):
        open_rlds(bridge)
    raw[0] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(DataError, match=f"{BRIDGE_SHARD}: record 0 .*length does not match"):
        open_rlds(bridge, check_data=False)


@pytest.mark.parametrize("kept", [5, 15, 6000, -2])
def test_a_truncated_file_is_told_by_file_and_record(bridge: Path, kept: int) -> None:
    shard = bridge / BRIDGE_SHARD
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.raises(DataError, match=f"{BRIDGE_SHARD}: record [01] .*is cut off"):
        open_rlds(bridge)


def test_an_empty_shard_is_refused(bridge: Path) -> None:
    (bridge / BRIDGE_SHARD).write_bytes(b"")
    with pytest.raises(DataError, match=f"{BRIDGE_SHARD}: the file is empty"):
        open_rlds(bridge)


def test_a_missing_shard_is_named(bridge: Path) -> None:
    (bridge / BRIDGE_SHARD).unlink()
    with pytest.raises(DataError, match=f"1 of 2 shards of split 'train' are missing, the first is {BRIDGE_SHARD}"):
        open_rlds(bridge)


@pytest.mark.parametrize("file", ["features.json", "dataset_info.json"])
def test_missing_or_broken_descriptions_are_named(bridge: Path, file: str) -> None:
    (bridge / file).write_text("{}")
    with pytest.raises(DataError, match=file):
        open_rlds(bridge)
    (bridge / file).write_text("{")
    with pytest.raises(DataError, match=f"{file}: no JSON"):
        open_rlds(bridge)
    (bridge / file).unlink()
    with pytest.raises(DataError, match=f"{file}: No such file"):
        open_rlds(bridge)


def test_unknown_names_get_the_nearest(published: Path) -> None:
    source = open_rlds(published / "odd_features")
    with pytest.raises(DataError, match="column 'forces': there is none; did you mean 'force'"):
        source.columns(0, ["forces"])
    with pytest.raises(DataError, match="column 'contacts': got a feature of kind other"):
        source.columns(0, ["contacts"])
    with pytest.raises(DataError, match="camera 'force': got a feature of kind tensor"):
        source.images(0, "force", np.array([0]))
    with pytest.raises(DataError, match="no split 'training'; did you mean 'train'"):
        open_rlds(published / "odd_features", "training")


def test_two_versions_ask_for_one(published: Path) -> None:
    shutil.copytree(published / "odd_features/2.1.0", published / "odd_features/2.2.0")
    with pytest.raises(DataError, match="got the versions 2.1.0, 2.2.0, expected one"):
        open_rlds(published / "odd_features")


def test_whatever_a_faulty_writer_leaves_is_read_or_refused(published: Path) -> None:
    """Every sixth byte turned over, with the checksums right again."""
    shard = published / "odd_features/2.1.0/odd_features-train.tfrecord-00000-of-00002"
    ((_, view),) = records(shard)
    whole = bytes(view)
    del view
    refused = 0
    for place in range(0, len(whole), 6):
        write_records(shard, [whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]])
        try:
            source = open_rlds(published / "odd_features")
            source.columns(0)
            source.images(0, "camera", np.arange(source.episodes[0].length))
        except DataError as problem:
            assert shard.name in str(problem)
            refused += 1
    assert refused > 60


def test_a_picture_that_cannot_be_decoded_is_told_by_episode_and_frame(published: Path) -> None:
    """With the checksums right again, as a faulty writer leaves it."""
    shard = published / "odd_features/2.1.0/odd_features-train.tfrecord-00000-of-00002"
    (_, view), = records(shard)
    data = bytearray(view)
    where = data.rfind(b"\x89PNG")
    data[where : where + 4] = b"none"
    write_records(shard, [bytes(data)])
    source = open_rlds(published / "odd_features")
    assert source.images(0, "camera", np.array([0, 1])).shape == (2, 24, 20, 3)
    with pytest.raises(DataError, match=r"episode 0 \(record 0\): 'camera', frame 2: .*no complete image"):
        source.images(0, "camera", np.array([2]))
