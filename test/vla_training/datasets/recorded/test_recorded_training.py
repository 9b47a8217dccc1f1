"""A folder of bags needs only its path to be trained on: the window that is drawn is what was sent and seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from make_bags import Motion, picture, record_episode, tabletop

from vla_policy.errors import VlaError
from vla_policy.model.config import ModelConfig
from vla_policy.model.tokenizer import Tokenizer
from vla_training.datasets.config import Augmentation, Source
from vla_training.datasets.recorded import open_recorded
from vla_training.datasets.training_data import open_training_data
from vla_training.datasets.windows import Draw

CONTRACT = tabletop(32)
MODEL = ModelConfig(image_size=32, history_length=3, execute_rows=2, action_chunk_size=4, text_length=8,
                    proprioception_joints=("finger_joint",))


def test_bags_train_with_their_path_alone(tmp_path: Path) -> None:
    for number in range(4):  # of different lengths
        record_episode(tmp_path / f"episode_{number}", CONTRACT, Motion(seconds=1.5 + 0.1 * number))
    data = open_training_data([Source(path=str(tmp_path))], CONTRACT, MODEL)
    windows = data.train(Tokenizer.build(data.instructions), data.statistics.normalizers,
                         Augmentation(shift_px=0, brightness=0.0))
    drawn = windows[Draw(0, 1, 3)]
    window = windows.window(Draw(0, 1, 3))
    frames, _ = windows.frames_of(window, 3)
    assert data.instructions == ("push the button",)
    columns = open_recorded(tmp_path).columns(int(data.sources[0].episodes[window.episode]))
    numbers = columns["observation.state"][frames, 0].astype(int)  # the first joint counts the messages
    rows = np.concatenate([open_recorded(tmp_path).columns(int(e))["action"] for e in data.sources[0].episodes])
    np.testing.assert_allclose(data.sources[0].rows.array, rows, atol=1e-7)
    np.testing.assert_array_equal(drawn.images_BWVSS3[0, :, 0].numpy(), [picture(n, 32, 32) for n in numbers])


def test_bags_of_another_robot_are_refused(tmp_path: Path) -> None:
    record_episode(tmp_path / "one", CONTRACT, Motion(seconds=0.5))
    other = CONTRACT.model_copy(update={"base_frame": "world"})
    with pytest.raises(VlaError, match=r"base.frame.*base_link.*world|base.frame.*world.*base_link"):
        open_training_data([Source(path=str(tmp_path))], other, MODEL)
