"""Every published format, from its genuine files to a batch: numbers, images and words are those of the files."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from fabricated import tabletop, write_dataset
from make_bags import record_episode
from make_bags import tabletop as tabletop_of

from vla_policy.contract import ActionKind, RobotContract
from vla_policy.errors import ConfigError, DataError
from vla_policy.model.config import ModelConfig
from vla_policy.model.tokenizer import Tokenizer
from vla_policy.observation.resize import resize_image
from vla_policy.strict import parse
from vla_training.datasets.config import Augmentation, Source
from vla_training.datasets.loader import window_loader
from vla_training.datasets.registry import open_source
from vla_training.datasets.training_data import TrainingData, open_training_data
from vla_training.datasets.windows import Draw

FIXTURES = Path(__file__).parent / "fixtures"
STILL = Augmentation(shift_px=0, brightness=0.0)
PANDA = (*(f"panda_joint{number}" for number in range(1, 8)), "panda_finger_joint1")
ARM_OF_TWO = {
    "actions": {
        "kind": "joint_position",
        "joints": {"part": "action[x, y]", "unit": "deg"},
        "gripper": {"part": "action[gripper]", "closed_at": -100.0, "open_at": 100.0},
    },
    "state": {"joints": {"pan": "observation.state[pan]"}, "joint_unit": "deg"},
    "cameras": {"static": "observation.images.top"},
}
NOISY_BRIDGE = {  # the fixture's gripper is noise about 0
    "kind": "ee_delta",
    "pose": {"position": "action[0:3]", "rotation": "action[3:6]", "rotation_as": "euler_xyz"},
    "gripper": {"part": "action[6]", "closed_at": -9.0, "open_at": 9.0},
}
# format -> (folder, rate [Hz], what a training file says of it)
FORMATS = {
    "v3_videos": ("lerobot/v3_videos", 10, ARM_OF_TWO),
    "v3_images": ("lerobot/v3_images", 10, ARM_OF_TWO),
    "v21_videos": ("lerobot/v21_videos", 10, ARM_OF_TWO),
    "calvin": ("calvin", 30, {}),
    "bridge": ("rlds/bridge_dataset", 5, {"actions": NOISY_BRIDGE}),
    "rt1": ("rlds/fractal_data", 3, {"preset": "rt1"}),
}


def contract_of(name: str, rate_hz: float) -> RobotContract:
    """The tabletop's, at the data's rate, with the joints that it tells of."""
    contract = tabletop()
    action = {"rate_hz": float(rate_hz)}
    joints = contract.joints.model_copy(update={"names": PANDA})
    if name.startswith("v"):
        joints = contract.joints.model_copy(update={"names": ("pan", "lift", "elbow")})
        action |= {"kind": ActionKind.JOINT_POSITION, "joints": ("pan", "lift")}
    return contract.model_copy(
        update={"joints": joints, "action": contract.action.model_copy(update=action)}
        | ({"pose": None} if name.startswith("v") else {})
    )


def model_of(name: str) -> ModelConfig:
    felt = {"calvin": ("panda_finger_joint1",), "v": ("pan",)}.get("v" if name.startswith("v") else name)
    cameras = ("static", "wrist") if name == "calvin" else ("static",)
    return ModelConfig(
        image_size=32, history_length=3, execute_rows=1, action_chunk_size=2, text_length=16, cameras=cameras,
        proprioception=felt is not None, proprioception_joints=felt or (),
    )  # fmt: skip


def opened(name: str, tmp_path: Path) -> tuple[TrainingData, Source]:
    folder, rate_hz, said = FORMATS[name]
    copy = tmp_path / Path(folder).name
    shutil.copytree(FIXTURES / folder, copy)
    source = parse(Source, {"path": str(copy)} | said, "training", ConfigError)
    return open_training_data([source], contract_of(name, rate_hz), model_of(name)), source


@pytest.mark.parametrize("name", FORMATS)
def test_a_batch_is_what_the_files_say(name: str, tmp_path: Path) -> None:
    data, source = opened(name, tmp_path)
    windows = data.train(Tokenizer.build(data.instructions), data.statistics.normalizers, STILL)
    draws = [Draw(0, slot, 3) for slot in range(6)]
    batch = next(iter(window_loader(windows, [draws])))
    assert np.isfinite(batch.arm_BWKA.numpy()).all() and np.isfinite(batch.state_BWP.numpy()).all()
    assert batch.gripper_BWK.min() >= 0 and batch.gripper_BWK.max() <= 1
    reader = open_source(source.path, source.format)
    published = data.sources[0].cameras[0]
    for number, draw in enumerate(draws):
        window = windows.window(draw)
        frames, _ = windows.frames_of(window, 3)
        episode = int(data.sources[0].episodes[window.episode])
        image = reader.images(episode, published, frames[1:2])[0]
        assert np.array_equal(batch.images_BWVSS3[number, 1, 0].numpy(), resize_image(image, 32))
        words = data.instructions[window.sentence]
        assert words in reader.episodes[episode].instructions


def test_calvins_rows_are_the_published_steps_in_metres(tmp_path: Path) -> None:
    data, source = opened("calvin", tmp_path)
    reader, rows = open_source(source.path), data.sources[0].rows.array
    published = np.concatenate([reader.columns(e)["rel_actions"] for e in data.sources[0].episodes])
    assert np.allclose(rows[:, :3], published[:, :3] * 0.02, atol=1e-6)
    assert np.array_equal(rows[:, 6], published[:, 6] > 0)
    small = np.abs(published[:, 3:6]).max(-1) < 1e-6
    assert np.allclose(rows[small, 3:6], 0.0, atol=1e-6)


def test_rt1s_gripper_holds_what_it_was_last_asked_for(tmp_path: Path) -> None:
    data, _ = opened("rt1", tmp_path)
    assert set(np.unique(data.sources[0].rows.array[:, 6])) <= {0.0, 1.0}


def test_a_recording_of_ours_trains_with_its_path_alone(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set")
    model = ModelConfig(image_size=32, history_length=4, proprioception_joints=("finger_joint",), text_length=8)
    data = open_training_data([Source(path=str(tmp_path / "set"))], tabletop(), model)
    assert data.sources[0].rates.rows_per_frame == 4 and data.sources[0].place is not None
    windows = data.train(Tokenizer.build(data.instructions), data.statistics.normalizers, STILL)
    assert windows[Draw(0, 0, 4)].arm_BWKA.shape == (1, 4, 8, 6)


def test_bags_train_with_their_path_alone_and_only_for_their_contract(tmp_path: Path) -> None:
    contract = tabletop_of(32)
    record_episode(tmp_path / "bags/one", contract)
    model = ModelConfig(image_size=32, history_length=4, proprioception_joints=("finger_joint",), text_length=8)
    source = Source(path=str(tmp_path / "bags"))
    data = open_training_data([source], contract, model)
    windows = data.train(Tokenizer.build(data.instructions), data.statistics.normalizers, STILL)
    batch = windows[Draw(0, 0, 4)]
    window = windows.window(Draw(0, 0, 4))
    reader = open_source(source.path)
    frames, _ = windows.frames_of(window, 4)
    assert frames.tolist() == (window.start + 4 * np.arange(4)).tolist()  # a look every execute_rows rows
    published = reader.columns(0, ["action"])["action"][frames[1] : frames[1] + 8]
    assert np.allclose(batch.arm_BWKA[0, 1], data.statistics.action.apply(published[:, :6]), atol=1e-6)
    slow = contract.model_copy(update={"action": contract.action.model_copy(update={"rate_hz": 10.0})})
    with pytest.raises(DataError, match="action rate_hz: the data was recorded with 20, contract 'tabletop' has 10"):
        open_training_data([source], slow, model)
