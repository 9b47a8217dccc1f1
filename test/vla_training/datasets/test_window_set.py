"""Windows of drawn frames with the actions that follow: inside their episode, padded at the end, the same for any
loader.
"""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from fabricated import tabletop
from memory_source import SIZE, MemorySource

from vla_policy.errors import ConfigError, DataError
from vla_policy.model.config import ModelConfig
from vla_policy.model.tokenizer import Tokenizer
from vla_policy.observation.proprioception import proprioception
from vla_policy.types import Observation, Pose
from vla_training.datasets import prepared, registry
from vla_training.datasets.batch import Batch
from vla_training.datasets.config import Augmentation, CameraAugmentation, Source
from vla_training.datasets.loader import window_loader
from vla_training.datasets.source import EpisodeInfo
from vla_training.datasets.training_data import TrainingData, open_training_data
from vla_training.datasets.windows import Draw, WindowSet

LENGTHS = (5, 3, 9, 4)  # frames: shorter and longer than a window of 4
ROWS = 4
SENTENCES = ("open the drawer", "lift the red block")
MODEL = ModelConfig(
    image_size=SIZE,
    history_length=4,
    action_chunk_size=8,
    execute_rows=4,
    text_length=8,
    proprioception_joints=("finger_joint",),
)
UNCHANGED = Augmentation(shift_px=0, brightness=0.0)


def memory_set(root: Path, fingerprint: str = "0123456789abcdef", shift: float = 0.0) -> MemorySource:
    """Every action row says its episode in x and its number in y; every frame says the same in joint 1 and the
    finger.
    """
    root.mkdir(parents=True, exist_ok=True)
    episodes = []
    for number, length in enumerate(LENGTHS):
        action = np.zeros((length, ROWS, 7), np.float32)
        action[..., 0] = number + shift
        action[..., 1] = np.arange(length * ROWS).reshape(length, ROWS)
        state = np.zeros((length, 8), np.float32)
        state[:, 7] = np.arange(length)
        pose = np.tile(np.array([number, 0, 0, 0, 0, 0, 1], np.float32), (length, 1))
        sentence = SENTENCES[number % 2]
        info = EpisodeInfo(f"{root}, episode {number}", length, (sentence,), sentence.replace(" ", "_"))
        episodes.append((info, {"action": action, "observation.state": state, "observation.pose": pose}))
    names = {"action": tabletop().action_names, "observation.state": tabletop().joints.names}
    return MemorySource(root, episodes, names=names, fingerprint=fingerprint)


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, MemorySource]:
    """Two data sets by folder name; they open as themselves."""
    found = {"one": memory_set(tmp_path / "one"), "two": memory_set(tmp_path / "two", "fedcba9876543210", shift=10.0)}
    monkeypatch.setattr(prepared, "open_source", lambda path, format: found[Path(path).name])
    return found


def data_of(sets: dict[str, MemorySource], *sources: Source, share: float = 0.0, cache: str = "none") -> TrainingData:
    sources = sources or (Source(path=str(sets["one"].root)),)
    return open_training_data(sources, tabletop(), MODEL, validation_share=share, seed=3, cache=cache)


def train_of(data: TrainingData, augmentation: Augmentation = UNCHANGED) -> WindowSet:
    return data.train(Tokenizer.build(data.instructions), data.statistics.normalizers, augmentation)


def draws(count: int, window: int = 4, step: int = 0) -> list[Draw]:
    return [Draw(step, slot, window) for slot in range(count)]


def same(left: Batch, right: Batch) -> bool:
    return all(
        torch.equal(getattr(left, name), getattr(right, name))
        for name in ("images_BWVSS3", "state_BWP", "text_ids_BL", "text_mask_BL", "arm_BWKA", "gripper_BWK", "rows_BWK")
    )


def test_a_window_pads_after_its_episode(sets: dict[str, MemorySource]) -> None:
    data = data_of(sets)
    windows = train_of(data)
    drawn = [windows.window(draw) for draw in draws(200)]
    short = next(i for i, window in enumerate(drawn) if window.episode == 1)  # 3 frames, 12 rows
    batch = windows[Draw(0, short, 4)]
    assert batch.images_BWVSS3[0, :, 0, 0, 0, 0].tolist() == [0, 1, 2, 2]
    counted = batch.rows_BWK[0].sum(-1).tolist()
    assert counted == [8, 8, 4, 0]
    rows = data.statistics.action.invert(batch.arm_BWKA[0].numpy())[..., 1]
    whole = data.sources[0].rows.array[20:32, 1]
    low, high = data.statistics.action.low[1], data.statistics.action.high[1]
    assert np.allclose(rows[1], np.clip(whole[4:12], low, high), atol=1e-4)


def test_windows_stay_inside_their_episodes_and_every_frame_is_drawn(sets: dict[str, MemorySource]) -> None:
    windows = train_of(data_of(sets))
    for length in (1, 4):
        batch = windows.__getitems__(draws(500, length))
        frames, episodes = (batch.images_BWVSS3[:, :, 0, 0, 0, i] for i in (0, 1))
        assert bool((episodes == episodes[:, :1]).all())
        real = batch.rows_BWK.any(-1)
        seen = set(zip((episodes[real] // 10).tolist(), frames[real].tolist(), strict=True))
        assert seen == {(episode, frame) for episode, count in enumerate(LENGTHS) for frame in range(count)}
        assert bool(real[:, 0].all())


def test_a_frame_has_the_state_and_rows_that_the_robot_had(sets: dict[str, MemorySource]) -> None:
    data = data_of(sets)
    batch = train_of(data).__getitems__(draws(40))
    frames, episodes = (batch.images_BWVSS3[:, :, 0, 0, 0, i].numpy().astype(int) for i in (0, 1))
    for window, step in np.argwhere(batch.rows_BWK.any(-1).numpy()):
        pose = Pose(np.array([episodes[window, step] / 10, 0, 0]), np.array([0, 0, 0, 1.0]))
        felt = Observation(0, {}, np.append(np.zeros(7), frames[window, step]), pose)
        expected = data.statistics.state.apply(proprioception(tabletop(), felt, ("finger_joint",)))
        assert np.allclose(batch.state_BWP[window, step], expected)
        first = frames[window, step] * ROWS
        count = int(batch.rows_BWK[window, step].sum())
        scaled = data.statistics.action.apply([[0, first + row, 0, 0, 0, 0] for row in range(count)])[:, 1]
        assert np.allclose(batch.arm_BWKA[window, step, :count, 1], scaled)


def test_a_window_is_prefix_of_a_longer_one(sets: dict[str, MemorySource]) -> None:
    """The policy looks back over what it has seen so far: the frames of a window are those of a stream."""
    windows = train_of(data_of(sets))
    window = windows.window(Draw(0, 0, 4))
    for length in (1, 2, 3):
        assert windows.frames_of(window, length)[0].tolist() == windows.frames_of(window, 4)[0][:length].tolist()


def test_only_the_frames_of_the_window_are_decoded(sets: dict[str, MemorySource]) -> None:
    windows = train_of(data_of(sets))
    short = next(draw for draw in draws(200) if windows.window(draw).episode == 1)
    sets["one"].asked.clear()
    assert windows[short].images_BWVSS3.shape == (1, 4, 2, SIZE, SIZE, 3)
    assert sets["one"].asked == [[0, 1, 2], [0, 1, 2]]  # padding repeats the last one, which is decoded once


def test_decoded_once_or_when_drawn_is_the_same(sets: dict[str, MemorySource]) -> None:
    fresh = train_of(data_of(sets), Augmentation()).__getitems__(draws(12))
    kept = train_of(data_of(sets, cache="decoded"), Augmentation())
    sets["one"].asked.clear()
    assert same(fresh, kept.__getitems__(draws(12)))
    assert not sets["one"].asked


def test_a_window_is_the_same_in_any_batch_and_worker(sets: dict[str, MemorySource]) -> None:
    windows = train_of(data_of(sets), Augmentation())
    steps = [[Draw(step, slot, 4) for slot in range(4)] for step in range(3)]
    alone = [windows.__getitems__(step) for step in steps]
    for workers in (0, 2):
        loader = window_loader(windows, iter(steps), workers)
        assert all(same(left, right) for left, right in zip(alone, loader, strict=True))
        assert loader.wait_s > 0
    assert same(windows[steps[1][2]], windows.__getitems__([steps[1][2]]))
    assert torch.equal(windows[steps[1][2]].images_BWVSS3[0], alone[1].images_BWVSS3[2])
    assert not same(alone[0], alone[1])


def test_the_data_sets_file_stays_out_of_the_pickle(sets: dict[str, MemorySource]) -> None:
    windows = train_of(data_of(sets, cache="decoded"))
    windows.__getitems__(draws(2))
    assert len(pickle.dumps(windows)) < 40_000  # 86 kB of images alone


def test_every_frame_of_a_window_is_changed_alike_and_each_camera_in_its_own_way(sets: dict[str, MemorySource]) -> None:
    own = Augmentation(shift_px=0, brightness=0.3, cameras={"wrist": CameraAugmentation(shift_px=0, brightness=0.0)})
    plain = train_of(data_of(sets)).__getitems__(draws(6)).images_BWVSS3[..., 0, 0, :].float()
    changed = train_of(data_of(sets), own).__getitems__(draws(6)).images_BWVSS3[..., 0, 0, :].float()
    assert torch.equal(plain[:, :, 1], changed[:, :, 1])
    gain = changed[:, :, 0, 1] / plain[:, :, 0, 1].clamp(min=1)  # green is the same in all frames of an episode
    assert torch.equal(gain, gain[:, :1].expand_as(gain))
    assert len(set(gain[plain[:, 0, 0, 1] > 0][:, 0].tolist())) > 1


def test_sources_are_drawn_by_weight_and_scaled_by_their_own_statistics(sets: dict[str, MemorySource]) -> None:
    one, two = (str(sets[name].root) for name in ("one", "two"))
    data = data_of(sets, Source(path=one, weight=3.0), Source(path=two, normalize="own"))
    windows = train_of(data)
    drawn = [windows.window(draw) for draw in draws(400, 1)]
    assert np.mean([window.source == 0 for window in drawn]) == pytest.approx(0.75, abs=0.06)
    assert data.statistics.action.high[0] == pytest.approx(3.0)  # of the first alone
    batch = windows.__getitems__(draws(400, 1))
    second = torch.tensor([window.source for window in drawn]) == 1
    assert batch.arm_BWKA[second, ..., 0].min() < -0.9  # 10 to 13 with its own scale; all 1 with the other's
    assert data.facts["sources"][0]["share"] == pytest.approx(0.75)


def test_the_split_is_by_episode_and_by_the_seed(sets: dict[str, MemorySource]) -> None:
    path = str(sets["one"].root)
    data = data_of(sets, Source(path=path), Source(path=path, tasks=("lift_the_red_block",)), share=0.5)
    held = [set(source.episodes[side]) for source, side in zip(data.sources, data.held_out, strict=True)]
    assert len(held[0]) == 2
    assert held[1] == held[0] & {1, 3}
    again = data_of(sets, Source(path=path), share=0.5)
    assert set(again.sources[0].episodes[again.held_out[0]]) == held[0]
    with pytest.raises(ConfigError, match="leaves none to train on"):
        data_of(sets, Source(path=path, episodes=(0, 1)), share=0.9)
    assert data_of(sets).validation(Tokenizer.build(SENTENCES), data.statistics.normalizers) is None


def test_validation_draws_held_out_episodes_as_they_are(sets: dict[str, MemorySource]) -> None:
    data = data_of(sets, share=0.5)
    validation = data.validation(Tokenizer.build(data.instructions), data.statistics.normalizers)
    seen = {validation.window(draw).episode for draw in draws(50)}
    assert seen == set(np.flatnonzero(data.held_out[0]))
    assert not any(validation.window(draw).changes for draw in draws(5))
    assert {train_of(data).window(draw).episode for draw in draws(50)}.isdisjoint(seen)


def test_paraphrases_are_drawn_too(sets: dict[str, MemorySource], tmp_path: Path) -> None:
    file = tmp_path / "words.yaml"
    file.write_text("open the drawer: [pull the drawer, draw it out]\n")
    data = data_of(sets, Source(path=str(sets["one"].root), paraphrases=str(file)))
    assert data.instructions == ("draw it out", "lift the red block", "open the drawer", "pull the drawer")
    assert data.task_sentences["open_the_drawer"] == ["draw it out", "open the drawer", "pull the drawer"]
    batch = train_of(data).__getitems__(draws(60, 1))
    assert len({tuple(row) for row in batch.text_ids_BL.tolist()}) == 4
    file.write_text("open the draw: [pull it]\n")
    with pytest.raises(
        ConfigError, match="'open the draw' is said in no chosen episode.*did you mean 'open the drawer'"
    ):
        data_of(sets, Source(path=str(sets["one"].root), paraphrases=str(file)))
    file.write_text("- pull it\n")
    with pytest.raises(ConfigError, match="expected a mapping, sentence -> list of sentences"):
        data_of(sets, Source(path=str(sets["one"].root), paraphrases=str(file)))


def test_what_is_not_there_is_refused(sets: dict[str, MemorySource]) -> None:
    path = str(sets["one"].root)
    with pytest.raises(ConfigError, match="no task 'lift_red' in it; did you mean 'lift_the_red_block'"):
        data_of(sets, Source(path=path, tasks=("lift_red",)))
    with pytest.raises(ConfigError, match=r"episodes: got \[0, 9\], expected at most 4"):
        data_of(sets, Source(path=path, episodes=(0, 9)))
    sets["one"].episodes = [EpisodeInfo("mute", 3, (" ",)) for _ in LENGTHS]
    with pytest.raises(DataError, match="no episode to learn from: 4 in all, 4 chosen .* none of these with frames"):
        data_of(sets)


def test_a_data_set_that_breaks_while_it_is_read_says_where(sets: dict[str, MemorySource]) -> None:
    windows = train_of(data_of(sets))

    def cut_off(episode: int, camera: str, frames: np.ndarray) -> np.ndarray:
        raise DataError(f"file.mp4, episode {episode}: cut off")

    sets["one"].images = cut_off
    with pytest.raises(DataError, match="^file.mp4, episode [0-3]: cut off$"):
        next(iter(window_loader(windows, [draws(2)])))


def test_formats_are_found_by_their_content(tmp_path: Path) -> None:
    fixtures = Path(__file__).parent / "fixtures"
    found = {
        folder.name: registry.detect_format(folder)
        for folder in (fixtures / "lerobot/v3_videos", fixtures / "lerobot/v21_videos", fixtures / "calvin/training")
    }
    assert found == {"v3_videos": "lerobot", "v21_videos": "lerobot", "training": "calvin"}
    (tmp_path / "notes.txt").touch()
    with pytest.raises(
        DataError, match="no data set of a known format in it; got notes.txt, expected lerobot: meta/info.json"
    ):
        registry.open_source(tmp_path)
    with pytest.raises(ConfigError, match="unknown format 'lerobt'; did you mean 'lerobot'"):
        registry.open_source(tmp_path, "lerobt")
    with pytest.raises(DataError, match="no such folder"):
        registry.open_source(tmp_path / "none")
