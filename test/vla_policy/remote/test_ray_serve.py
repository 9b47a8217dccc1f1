"""Two copies of a policy on a Ray cluster of this machine behind one address; without Ray, words that say so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bundles import write_bundle
from policies import SENTENCES, observation
from server_rig import CONTRACT

from vla_policy.checkpoint import load_bundle
from vla_policy.errors import RemoteError
from vla_policy.policy import Policy
from vla_policy.remote.client import ClientOptions, RemotePolicy
from vla_policy.remote.serve import main, parse_arguments

PORT, UP_S = 18937, 150.0
try:
    import ray.serve

    HAS_RAY = bool(ray.serve)
except ImportError:  # ray may be there without what its Serve needs
    HAS_RAY = False


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", "tabletop", SENTENCES)


@pytest.fixture
def url(bundle: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "vla_policy.remote.serve", str(bundle), "--ray", "local", "--replicas", "2",
               "--batch", "2", "--device", "cpu", "--port", str(PORT)]
    environment = os.environ | {"VLA_POLICY_TOKEN": "secret", "PYTHONUNBUFFERED": "1"}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=environment, **pipe) as server:
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(server.stdout), daemon=True)
        reader.start()
        until_s = time.monotonic() + UP_S
        while not any("serving on" in line for line in lines):
            assert server.poll() is None and time.monotonic() < until_s, "".join(lines)
            time.sleep(0.2)
        yield f"ws://127.0.0.1:{PORT}"
        server.send_signal(signal.SIGINT)
        try:
            assert server.wait(60.0) == 0, "".join(lines)
        finally:
            server.kill()


@pytest.mark.skipif(not HAS_RAY, reason='needs `pip install "ray[serve]"`')
@pytest.mark.timeout(300)
def test_clients_of_two_replicas_get_the_chunks_of_one_process(url: str, bundle: Path) -> None:
    local = Policy(load_bundle(bundle))
    local.reset(SENTENCES[0])
    expected = [local.step(observation(index)).values for index in range(3)]
    found: list[object] = []

    def drive() -> None:
        try:
            policy = RemotePolicy(url, CONTRACT, ClientOptions(answer_s=60.0, connect_s=60.0, token="secret"))
            policy.reset(SENTENCES[0])
            found.append([policy.step(observation(index)).values for index in range(3)])
            policy.close()
        except Exception as problem:  # a thread's failure must reach the test
            found.append(problem)

    threads = [threading.Thread(target=drive) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join(120) for thread in threads]
    assert len(found) == 4
    for chunks in found:
        assert isinstance(chunks, list), chunks
        np.testing.assert_allclose(chunks, expected, atol=1e-6)
    with pytest.raises(RemoteError, match="401: wrong or missing token"):
        RemotePolicy(url, CONTRACT, ClientOptions(token="guess", connect_s=60.0))


@pytest.mark.skipif(HAS_RAY, reason="Ray Serve is installed here")
def test_without_ray_the_words_say_what_to_install(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(bundle), "--ray", "local"]) == 1
    assert 'pip install "ray[serve]"' in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--replicas", "2"], ["--gpus", "0.5"], ["--batch", "0"], ["--wait-ms", "-1"]])
def test_options_that_make_no_sense_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["tabletop", *arguments])
    assert capsys.readouterr().err
