"""Observations of several clients in: stepped together, late and lost ones not at all, each with its own answer."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from policies import bundle
from server_rig import CONTRACT, CountingPolicy
from websockets.sync.client import connect

from vla_policy.errors import ConfigError, ObservationError, RemoteError, VlaError
from vla_policy.execution import Execution, PacedPolicy
from vla_policy.policy import Policy, step_together
from vla_policy.remote.answering import Answering, Batching
from vla_policy.remote.client import ClientOptions, RemotePolicy
from vla_policy.remote.client import connect as connect_policy
from vla_policy.remote.convention import Convention
from vla_policy.remote.session import Session
from vla_policy.remote.wire import MAX_MESSAGE_BYTES, Message, MessageType, pack, unpack
from vla_policy.types import ActionChunk, InFlight, Observation

Serve = Callable[..., str]
SENTENCE = "lift the red block"
PATIENT = ClientOptions(answer_s=30.0)


class Gate:
    """Keeps of how many robots each step together was. open: what a policy of these tests may wait for."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.open = threading.Event()

    def step_together(self, policies: Sequence[CountingPolicy], observations: Sequence[Observation],
                      run_ids: Sequence[int], in_flight: Sequence[InFlight | None]) -> list[ActionChunk | VlaError]:
        self.sizes.append(len(policies))
        return [policy.step(seen, run) for policy, seen, run in zip(policies, observations, run_ids, strict=True)]


def drive(url: str, seen: Sequence[Observation], instruction: str = SENTENCE) -> list[np.ndarray]:
    """The chunks that a client gets for these observations."""
    policy = RemotePolicy(url, CONTRACT, PATIENT)
    policy.reset(instruction)
    chunks = [policy.step(each).values for each in seen]
    policy.close()
    return chunks


def at_once(jobs: Sequence[Callable[[], object]]) -> list[object]:
    """What the jobs return, each in a thread of its own. Raises: what one of them raises."""
    results: list[object] = [None] * len(jobs)

    def work(index: int) -> None:
        try:
            results[index] = jobs[index]()
        except Exception as problem:  # a thread's failure must reach the test
            results[index] = problem

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(jobs))]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def test_what_arrives_while_the_policy_runs_is_stepped_together(serve: Serve, observation: Observation) -> None:
    gate, running = Gate(), threading.Event()

    class Slow(CountingPolicy):
        def step(self, seen: Observation, run_id: int = 1) -> ActionChunk:
            running.set()
            assert gate.open.wait(60.0)
            return super().step(seen, run_id)

    url = serve(Slow, batching=Batching(gate.step_together, most=8))
    first, *others = [RemotePolicy(url, CONTRACT, ClientOptions(answer_s=60.0)) for _ in range(4)]
    [client.reset("a") for client in (first, *others)]

    def ask_others() -> list[float]:
        assert running.wait(60.0)
        for client in others:
            client._send(MessageType.OBSERVATION, client._payload(observation, 1))
        time.sleep(1.0)  # they arrive meanwhile
        gate.open.set()
        return [client._receive(MessageType.ACTION).payload["actions"][0, 0] for client in others]

    assert at_once([lambda: first.step(observation).values[0, 0], ask_others]) == [1.0, [1.0] * 3]
    assert gate.sizes == [3]


def test_a_batch_waits_for_others_and_is_never_larger_than_asked(serve: Serve, observation: Observation) -> None:
    gate = Gate()
    url = serve(batching=Batching(gate.step_together, most=2, wait_s=0.5))
    at_once([lambda: drive(url, [observation])] * 4)
    assert set(gate.sizes) == {2}


def test_chunks_of_a_batch_are_those_of_single_steps(serve: Serve) -> None:
    """Four robots with instructions of their own and windows of other lengths, against policies in this process."""
    made = bundle()
    first, sizes = Policy(made), []

    def counted(policies: Sequence[Policy], *arguments: object) -> list[ActionChunk | VlaError]:
        sizes.append(len(policies))
        return step_together(policies, *arguments)

    def seen(robot: int) -> list[Observation]:
        rng = np.random.default_rng(robot)
        images = {name: rng.integers(0, 256, (camera.height, camera.width, 3), dtype=np.uint8)
                  for name, camera in CONTRACT.cameras.items()}
        base = dataclasses.replace(first._blank_observation(), images=images)
        return [dataclasses.replace(base, stamp_ns=(tick + 1) * first.period_ns) for tick in range(3 + robot)]

    url = serve(first.sibling, feels=True, batching=Batching(counted, most=4, wait_s=0.05))
    sentences = [SENTENCE, "open the drawer", "lift the green cube", SENTENCE]
    found = at_once([lambda robot=robot: drive(url, seen(robot), sentences[robot]) for robot in range(4)])
    for robot, chunks in enumerate(found):
        alone = Policy(made)
        alone.reset(sentences[robot])
        for chunk, each in zip(chunks, seen(robot), strict=True):
            np.testing.assert_allclose(chunk, alone.step(each).values, atol=1e-6)
    assert max(sizes) > 1


def test_one_wrong_observation_spoils_no_other_of_its_batch(serve: Serve) -> None:
    made = bundle()
    first = Policy(made)
    url = serve(first.sibling, feels=True, batching=Batching(step_together, most=2, wait_s=0.5))
    good = first._blank_observation()
    bad = dataclasses.replace(good, images={name: image[:10] for name, image in good.images.items()})

    def spoiled() -> str:
        with pytest.raises(ObservationError, match="camera 'static'"):
            drive(url, [bad])
        return "refused"

    chunks, refused = at_once([lambda: drive(url, [good]), spoiled])
    assert refused == "refused" and np.isfinite(chunks[0]).all()


def test_an_observation_that_waited_too_long_is_refused(serve: Serve, observation: Observation) -> None:
    inside, leave = threading.Event(), threading.Event()

    class Busy(CountingPolicy):
        steps_of_all = 0

        def step(self, seen: Observation, run_id: int = 1) -> ActionChunk:
            Busy.steps_of_all += 1
            inside.set()
            assert leave.wait(30.0)
            return super().step(seen, run_id)

    url = serve(Busy)
    first, second = RemotePolicy(url, CONTRACT, PATIENT), RemotePolicy(url, CONTRACT, PATIENT)
    first.reset("a"), second.reset("a")
    hurried = dataclasses.replace(PATIENT, answer_s=0.1)

    def late() -> str:
        assert inside.wait(30.0)
        second._send(MessageType.OBSERVATION, second._payload(observation, 1) | {"answer_s": hurried.answer_s})
        time.sleep(0.3)
        leave.set()
        with pytest.raises(RemoteError, match=r"late: the observation waited .* within 0.1 s; it was not computed"):
            second._receive(MessageType.ACTION)
        return "late"

    assert at_once([lambda: first.step(observation).values[0, 0], late]) == [1.0, "late"]
    assert Busy.steps_of_all == 1
    assert second.step(observation).values[0, 0] == 1.0  # the connection stays


def test_the_observation_of_a_client_that_left_is_not_computed_and_disturbs_no_other(
        serve: Serve, observation: Observation) -> None:
    inside, leave, stepped = threading.Event(), threading.Event(), []

    class Busy(CountingPolicy):
        def step(self, seen: Observation, run_id: int = 1) -> ActionChunk:
            stepped.append(run_id)
            inside.set()
            assert leave.wait(30.0)
            return super().step(seen, run_id)

    url = serve(Busy)
    stays, leaves = RemotePolicy(url, CONTRACT, PATIENT), RemotePolicy(url, CONTRACT, PATIENT)
    stays.reset("a"), leaves.reset("a")

    def go() -> None:
        assert inside.wait(30.0)
        leaves._send(MessageType.OBSERVATION, leaves._payload(observation, 99))
        leaves.close()
        time.sleep(0.2)
        leave.set()

    at_once([lambda: stays.step(observation, 5), go])
    assert stays.step(observation, 6).values[0, 0] == 2.0
    assert stepped == [5, 6]


def test_a_client_that_is_cut_off_in_mid_message_disturbs_no_other(serve: Serve, observation: Observation) -> None:
    url = serve()
    stays = RemotePolicy(url, CONTRACT, PATIENT)
    stays.reset("a")
    broken = connect(url, compression=None)
    data = pack(Message(MessageType.OBSERVATION, {"images": dict(observation.images)}, 1), "raw")
    frame = b"\x82\xff" + len(data).to_bytes(8, "big") + b"\0\0\0\0" + data  # a whole frame as a client sends it
    broken.socket.sendall(frame[: len(frame) // 2])
    broken.socket.close()
    assert stays.step(observation).values[0, 0] == 1.0


def test_a_message_that_is_too_large_is_named_before_it_is_sent(serve: Serve, observation: Observation) -> None:
    policy = RemotePolicy(serve(), CONTRACT, PATIENT)
    policy.reset("a")
    side = int((MAX_MESSAGE_BYTES / 6) ** 0.5) + 100
    huge = dataclasses.replace(observation, images=dict.fromkeys(CONTRACT.cameras, np.zeros((side, side, 3), np.uint8)))
    with pytest.raises(RemoteError, match=rf"expected at most {MAX_MESSAGE_BYTES}; send smaller images, or .*=jpeg"):
        policy.step(huge)
    assert policy.step(observation).values[0, 0] == 1.0


def test_an_address_may_hold_options(serve: Serve, observation: Observation) -> None:
    url = serve()
    policy = connect_policy(f"{url}?images=jpeg&answer_s=20", CONTRACT)
    assert (policy.options.images, policy.options.answer_s) == ("jpeg", 20.0)
    policy.reset("a")
    assert policy.step(observation).values[0, 0] == 1.0
    mistakes = {"image=raw": "unknown option 'image'; did you mean 'images'", "images=gif": "images: got 'gif'",
                "answer_s=soon": "answer_s: got 'soon'"}
    for query, words in mistakes.items():
        with pytest.raises(RemoteError, match=words):
            connect_policy(f"{url}?{query}", CONTRACT)


def test_rows_in_flight_travel_and_are_gone_on_from(serve: Serve) -> None:
    made = bundle(action_head="flow", head_options={"width": 16, "layers": 1, "heads": 2, "denoiser_size": 32})
    first = Policy(made)
    remote = RemotePolicy(serve(first.sibling, feels=True), CONTRACT, PATIENT)
    assert remote.continues_chunks and remote.action_head == "flow"
    remote.reset(SENTENCE), first.reset(SENTENCE)
    rows = np.random.default_rng(0).uniform(-0.005, 0.005, (5, 7))
    seen = first._blank_observation()
    there, here = remote.step(seen, 1, InFlight(rows, 2)), first.step(seen, 1, InFlight(rows, 2))
    np.testing.assert_array_equal(there.values, here.values)
    np.testing.assert_array_equal(there.values[:2], rows[:2])
    with pytest.raises(ObservationError, match=r"in_flight_rows \(5, 7\) and in_flight_frozen 6"):
        remote.step(seen, 1, InFlight(rows, 6))


def test_a_served_head_that_cannot_go_on_is_refused_where_the_mode_is_chosen(serve: Serve) -> None:
    remote = RemotePolicy(serve(Policy(bundle()).sibling, feels=True), CONTRACT, PATIENT)
    with pytest.raises(ConfigError, match="got rtc, but action head 'lstm'"):
        PacedPolicy(remote, CONTRACT, Execution.RTC)


def test_numbers_that_are_none_are_refused(serve: Serve, observation: Observation) -> None:
    with connect(serve(), compression=None) as server:
        payload = {"images": dict(observation.images), "task_description": "a", "answer_s": "soon"}
        server.send(pack(Message(MessageType.OBSERVATION, payload, 4)))
        assert "got answer_s 'soon', expected a number" in unpack(server.recv(timeout=10)).payload["error"]


def test_closing_ends_the_threads_while_an_observation_waits(observation: Observation) -> None:
    async def run() -> int:
        answering = Answering(lambda: Session(CountingPolicy(), CONTRACT, Convention(), False))
        session = await answering.open()
        payload = {"images": dict(observation.images), "task_description": "a"}
        answer = await answering.answer(session, pack(Message(MessageType.OBSERVATION, payload, 7)))
        await answering.close()
        return unpack(answer).seq

    assert asyncio.run(asyncio.wait_for(run(), 30.0)) == 7
