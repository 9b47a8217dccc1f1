"""Server and client over a real websocket: the same actions as in process, and everything that can go wrong."""

from __future__ import annotations

import dataclasses
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from server_rig import CONTRACT, CountingPolicy
from websockets.sync.client import connect

from vla_policy.chance import RandomPolicy
from vla_policy.checkpoint import load_bundle
from vla_policy.contract import load_contract
from vla_policy.errors import InstructionError, ObservationError, RemoteError
from vla_policy.policy import Policy
from vla_policy.remote.client import ClientOptions, RemotePolicy
from vla_policy.remote.serve import main, make_server, parse_arguments
from vla_policy.remote.wire import MAX_MESSAGE_BYTES, Message, MessageType, pack, unpack
from vla_policy.resources import find_contract, find_policy
from vla_policy.types import Observation

Serve = Callable[..., str]


def test_a_served_bundle_acts_bit_for_bit_as_in_process(serve: Serve, observation: Observation) -> None:
    bundle = load_bundle(find_policy("tabletop"))
    local, text = Policy(bundle), bundle.instructions["open_drawer"][0]
    remote = RemotePolicy(serve(lambda: Policy(bundle), feels=True), CONTRACT)
    local.reset(text), remote.reset(text)
    for number in range(3):
        seen = dataclasses.replace(observation, stamp_ns=number * local.period_ns)
        here, there = local.step(seen, 5), remote.step(seen, 5)
        np.testing.assert_array_equal(here.values, there.values)
        assert dataclasses.astuple(here)[:2] == dataclasses.astuple(there)[:2]
        assert (here.execute_rows, here.run_id) == (there.execute_rows, there.run_id)
    assert remote.period_ns == local.period_ns
    assert set(remote.timings) == {"preprocess", "model", "postprocess", "transport"}


def test_served_chance_is_chance_in_process(serve: Serve, observation: Observation) -> None:
    local, remote = RandomPolicy(CONTRACT), RemotePolicy(serve(lambda: RandomPolicy(CONTRACT)), CONTRACT)
    local.reset("a"), remote.reset("a")
    for _ in range(3):
        np.testing.assert_array_equal(local.step(observation).values, remote.step(observation).values)
    assert remote.period_ns == local.period_ns


def test_chance_is_served_for_a_robot(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["random"]) == 1
    assert "serve random: got no --robot" in capsys.readouterr().err
    assert main(["random", "--robot", "franka"]) == 1
    assert "contract franka takes poses" in capsys.readouterr().err
    assert make_server(parse_arguments(["random", "--robot", "calvin", "--port", "0"])).options.port == 0


def test_every_client_has_its_own_episode(serve: Serve, observation: Observation) -> None:
    url = serve()
    first, second = RemotePolicy(url, CONTRACT), RemotePolicy(url, CONTRACT)
    first.reset("a"), second.reset("b")
    assert [first.step(observation).values[0, 0] for _ in range(3)] == [1.0, 2.0, 3.0]
    assert second.step(observation).values[0, 0] == 1.0
    first.reset("a")
    assert first.step(observation).values[0, 0] == 1.0


def test_a_client_of_rows_gets_one_an_observation(serve: Serve, observation: Observation) -> None:
    with connect(serve(), compression=None) as server:
        rows = [_ask_row(server, number, "a", observation) for number in range(3)]
        other = _ask_row(server, 3, "b", observation)
    np.testing.assert_allclose([row[0] for row in rows], [1.0, 1.01, 2.0], atol=1e-6)
    assert other[0] == 1.0  # another instruction begins another episode


def test_mistakes_are_told_and_the_connection_stays(serve: Serve, observation: Observation) -> None:
    policy = RemotePolicy(serve(feels=True), CONTRACT)
    with pytest.raises(InstructionError, match="never trained"):
        policy.reset("unknown words")
    policy.reset("a")
    with pytest.raises(ObservationError, match=r"joints \(2,\), expected \(8,\)"):
        policy.step(dataclasses.replace(observation, joints=np.zeros(2)))
    assert policy.step(observation).values[0, 0] == 1.0


def test_proprioception_is_asked_for(serve: Serve, observation: Observation) -> None:
    with connect(serve(feels=True), compression=None) as server:
        payload = {"images": dict(observation.images), "task_description": "a", "state": np.zeros(8)}
        server.send(pack(Message(MessageType.OBSERVATION, payload, 4)))
        reply = unpack(server.recv(timeout=5))
    assert reply.type is MessageType.ERROR and reply.seq == 4
    assert "got state of the robot's body, expected joints (8,)" in reply.payload["error"]


def test_garbage_is_answered_in_words(serve: Serve) -> None:
    with connect(serve(), compression=None) as server:
        server.send(b"\xc1")
        assert "no msgpack" in unpack(server.recv(timeout=5)).payload["error"]
        server.send(pack(Message(MessageType.HELLO, {"protocol_version": 9}, 2)))
        assert "got protocol_version 9, expected 1" in unpack(server.recv(timeout=5)).payload["error"]


def test_an_oversized_message_ends_only_its_own_connection(serve: Serve, observation: Observation) -> None:
    url = serve()
    policy = RemotePolicy(url, CONTRACT)
    policy.reset("a")
    with connect(url, compression=None) as server:
        server.send(b"0" * (MAX_MESSAGE_BYTES + 1))
        with pytest.raises(Exception, match="1009|closed|too big"):
            server.recv(timeout=5)
    assert policy.step(observation).values[0, 0] == 1.0


def test_a_wrong_token_and_one_client_too_many_are_refused(serve: Serve) -> None:
    url = serve(token="secret", most_clients=1)
    with pytest.raises(RemoteError, match="401: wrong or missing token"):
        RemotePolicy(url, CONTRACT)
    with pytest.raises(RemoteError, match="401"):
        RemotePolicy(url, CONTRACT, ClientOptions(token="guess"))
    first = RemotePolicy(url, CONTRACT, ClientOptions(token="secret"))
    with pytest.raises(RemoteError, match="503: 1 clients are connected"):
        RemotePolicy(url, CONTRACT, ClientOptions(token="secret"))
    first.close()


def test_a_server_that_hangs_costs_one_deadline_and_the_next_run_connects_again(
    serve: Serve, observation: Observation
) -> None:
    hang = threading.Event()

    class Hanging(CountingPolicy):
        def step(self, *arguments: object) -> object:
            if hang.is_set():
                time.sleep(0.6)
            return super().step(*arguments)

    policy = RemotePolicy(serve(Hanging), CONTRACT, ClientOptions(answer_s=0.2))
    policy.reset("a")
    hang.set()
    with pytest.raises(RemoteError, match="no answer within 0.2 s"):
        policy.step(observation)
    with pytest.raises(RemoteError, match="connection was lost"):
        policy.step(observation)
    hang.clear()
    time.sleep(0.7)  # the late answer comes to nobody
    policy.reset("a")
    assert policy.step(observation).values[0, 0] == 1.0


def test_a_policy_that_fails_is_reported_and_the_server_lives(serve: Serve, observation: Observation) -> None:
    class Failing(CountingPolicy):
        def step(self, *arguments: object) -> object:
            raise RuntimeError("out of memory")

    policy = RemotePolicy(serve(Failing), CONTRACT)
    policy.reset("a")
    for _ in range(2):
        with pytest.raises(RemoteError, match="RuntimeError: out of memory"):
            policy.step(observation)


def test_a_server_that_is_not_there_or_goes_away(serve: Serve, observation: Observation) -> None:
    with pytest.raises(RemoteError, match=r"no policy server answered.*serve BUNDLE"):
        RemotePolicy("ws://127.0.0.1:9", CONTRACT, ClientOptions(connect_s=2.0))
    policy = RemotePolicy(serve(idle_s=0.2), CONTRACT)
    policy.reset("a")
    time.sleep(0.6)
    with pytest.raises(RemoteError, match="went away"):
        policy.step(observation)


def test_a_connection_that_ended_between_two_runs_is_made_again(serve: Serve, observation: Observation) -> None:
    """As when this process was busy for longer than the server waits for a sign of life."""
    policy = RemotePolicy(serve(idle_s=0.2), CONTRACT)
    policy.reset("a")
    time.sleep(0.6)
    policy.reset("a")
    assert policy.step(observation).values.size


def test_a_server_for_another_robot_is_refused(serve: Serve) -> None:
    with pytest.raises(RemoteError, match=r"its actions are .*\(contract tabletop\), expected .*\(contract so101\)"):
        RemotePolicy(serve(), load_contract(find_contract("so101")))


def test_tls(serve: Serve, observation: Observation, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
        timeout=30,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    url = serve(tls=context)
    with pytest.raises(RemoteError, match="certificate"):
        RemotePolicy(url, CONTRACT)
    policy = RemotePolicy(url, CONTRACT, ClientOptions(tls=ssl.create_default_context(cafile=str(certificate))))
    policy.reset("a")
    assert policy.step(observation).values[0, 0] == 1.0


def test_eight_clients_at_once(serve: Serve, observation: Observation) -> None:
    url, failures = serve(), []

    def drive() -> None:
        try:
            policy = RemotePolicy(url, CONTRACT, ClientOptions(answer_s=20.0))
            policy.reset("a")
            assert [policy.step(observation).values[0, 0] for _ in range(5)] == [1.0, 2.0, 3.0, 4.0, 5.0]
            policy.close()
        except Exception as problem:  # a thread's failure must reach the test
            failures.append(problem)

    threads = [threading.Thread(target=drive) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    assert not failures


def _ask_row(server: object, number: int, text: str, observation: Observation) -> np.ndarray:
    payload = {"images": dict(observation.images), "task_description": text}
    server.send(pack(Message(MessageType.OBSERVATION, payload, number), "raw"))
    reply = unpack(server.recv(timeout=5))
    assert (reply.type, reply.seq) == (MessageType.ACTION, number)
    return reply.payload["actions"]
