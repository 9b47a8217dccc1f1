"""Images in; out: the squares of training, to one grey level, from multiplications that any device does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vla_policy.observation.device_resize import DeviceResize, area_weights, linear_weights
from vla_policy.observation.resize import resize_image


@pytest.mark.parametrize("height, width, size", [(480, 640, 224), (224, 224, 112), (448, 448, 224), (200, 200, 112),
                                                 (84, 84, 112), (100, 400, 224), (64, 64, 64), (720, 1280, 336)])
def test_it_is_the_resize_of_training_to_one_level(height: int, width: int, size: int) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    images[1] = np.linspace(0, 255, width, dtype=np.uint8)[None, :, None]
    ours = DeviceResize(size)(torch.from_numpy(images)).numpy().astype(int)
    theirs = np.stack([resize_image(image, size) for image in images]).astype(int)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1
    assert (ours != theirs).mean() < (0.2 if min(height, width) < size else 0.02)  # OpenCV grows in whole numbers


@pytest.mark.parametrize("weights", [area_weights(640, 224), linear_weights(84, 112), linear_weights(1, 4)])
def test_weights_of_an_output_pixel_sum_to_one(weights: torch.Tensor) -> None:
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
