"""Videos that decode and plots that show."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from test_results import episode

from sim_bridges.media import BAR_PX, SCALE, EpisodeFilm, VideoWriter, compose, plot_commands, plot_latencies
from vla_policy.contract import load_contract
from vla_policy.resources import find_contract

SIDE_PX = 32
STILL_FRAMES = 10


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]


def image(level: int) -> np.ndarray:
    return np.full((SIDE_PX, SIDE_PX, 3), level, np.uint8)


def test_a_video_holds_the_frames_it_was_given(tmp_path: Path) -> None:
    levels = [10, 90, 170, 250]
    with VideoWriter(tmp_path / "video.mp4", rate_hz=20.0) as writer:
        for level in levels:
            writer.write(np.full((64, 96, 3), level, np.uint8))
    frames = frames_of(tmp_path / "video.mp4")
    assert [frame.shape for frame in frames] == [(64, 96, 3)] * 4
    assert [frame.mean() for frame in frames] == pytest.approx(levels, abs=6)
    with av.open(str(tmp_path / "video.mp4")) as video:
        assert video.streams.video[0].average_rate == 20


def test_a_picture_has_the_caption_above_the_cameras_side_by_side() -> None:
    picture = compose({"static": image(60), "wrist": image(200)}, "open the drawer", "1 / 9")
    assert picture.shape == (BAR_PX + SCALE * SIDE_PX, 2 * SCALE * SIDE_PX, 3)
    assert picture[BAR_PX:, : SCALE * SIDE_PX].mean() == 60.0
    assert picture[BAR_PX:, SCALE * SIDE_PX :].mean() == 200.0
    assert picture[:BAR_PX].min() < 100  # words on it


def test_a_film_shows_the_instants_that_every_camera_saw_in_order(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "film.mp4", 20.0) as writer:
        film = EpisodeFilm(writer, ["static", "wrist"])
        for stamp, camera, level in [
            (90, "static", 0),
            (90, "wrist", 0),
            (300, "wrist", 240),
            (100, "static", 80),
            (100, "wrist", 80),
            (200, "static", 160),
            (200, "wrist", 160),
        ]:
            film.add(stamp, camera, image(level))
        film.develop(episode("open", True, start_ns=100))  # 90 is of the scene before, 300 was seen by one camera only
        film.develop(episode("open", True, start_ns=100))  # nothing came since
    levels = [frame[BAR_PX:].mean() for frame in frames_of(tmp_path / "film.mp4")]
    assert levels == pytest.approx([80] + [160] * (1 + STILL_FRAMES), abs=6)


def test_an_unfinished_video_without_frames_is_closed_without_complaint(tmp_path: Path) -> None:
    VideoWriter(tmp_path / "empty.mp4", 20.0).close()


def test_plots_are_written(tmp_path: Path) -> None:
    contract = load_contract(find_contract("tabletop"))
    results = [episode("open", True, latencies_ms={"model": [2.0, 3.0, 9.0], "decode": [0.4]}), episode("lift", False)]
    plot_commands(
        results[0], contract.command_names, contract.command_units, contract.control_rate_hz, tmp_path / "commands.png"
    )
    plot_latencies(results, tmp_path / "latencies.png")
    plot_latencies(results[1:], tmp_path / "none.png")
    for name in ("commands", "latencies", "none"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
