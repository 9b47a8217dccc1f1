"""Frames in; out: the last of them in order, in buffers that stay where they are."""

from __future__ import annotations

import pytest
import torch

from vla_policy.engine.session import FrameRing


@pytest.mark.parametrize("window", [1, 2, 5])
def test_a_ring_keeps_the_last_frames_in_order(window: int) -> None:
    ring = FrameRing(window)
    for step in range(3 * window):
        ring.push((torch.full((1, 2), float(step)), torch.full((1,), float(-step))))
        first, second = ring.read()
        expected = [float(kept) for kept in range(max(0, step - window + 1), step + 1)]
        assert first[0, :, 1].tolist() == expected and second[0].tolist() == [-kept for kept in expected]
        assert first.shape == (1, len(expected), 2) and ring.frames == len(expected)


def test_its_buffers_are_allocated_once_and_a_clear_forgets() -> None:
    ring = FrameRing(3)
    places = set()
    for step in range(12):
        if step == 5:
            ring.clear()
            assert ring.frames == 0
        ring.push((torch.full((1, 2), float(step)),))
        places.add(ring.read()[0].untyped_storage().data_ptr())
    assert len(places) == 1
    ring.clear()
    ring.push((torch.zeros(1, 2),))
    assert ring.read()[0].tolist() == [[[0.0, 0.0]]]
