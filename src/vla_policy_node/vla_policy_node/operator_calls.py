"""What an operator pressed in, the service calls that it means and what they answered, in words, out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger
from vla_msgs.srv import MarkRecording, StartRecording, StopRecording

from vla_policy.teleop.wish import Press
from vla_policy_node.operator_topics import TAKE_OVER_SERVICE

Say = Callable[[bool, str], None]


class OperatorCalls:
    """Clients of guard and recorder. say(good, sentence): called with each answer, and where nobody answers.

    start_request: makes the request to record, when it is asked for.
    """

    def __init__(self, node: Node, say: Say, start_request: Callable[[], StartRecording.Request]) -> None:
        self._say = say
        take_over = node.create_client(SetBool, TAKE_OVER_SERVICE)
        self._estop = node.create_client(SetBool, "/vla/set_estop")
        self._reset = node.create_client(Trigger, "/vla/safety/reset")
        start = node.create_client(StartRecording, "/vla/record/start")
        stop = node.create_client(StopRecording, "/vla/record/stop")
        mark = node.create_client(MarkRecording, "/vla/record/mark")
        self._calls: dict[Press, tuple[Any, Callable[[], Any]]] = {
            Press.TAKE_OVER: (take_over, lambda: SetBool.Request(data=True)),
            Press.HAND_BACK: (take_over, lambda: SetBool.Request(data=False)),
            Press.ESTOP: (self._estop, lambda: SetBool.Request(data=True)),
            Press.RECORD_START: (start, start_request),
            Press.RECORD_STOP: (stop, StopRecording.Request),
            Press.RECORD_DISCARD: (stop, lambda: StopRecording.Request(discard=True)),
            Press.RECORD_SUCCESS: (mark, lambda: MarkRecording.Request(outcome=MarkRecording.Request.SUCCESS)),
            Press.RECORD_FAILURE: (mark, lambda: MarkRecording.Request(outcome=MarkRecording.Request.FAILURE)),
        }

    def call(self, press: Press) -> None:
        """Ask for what `press` means; returns at once."""
        if press is Press.RESET_GUARD:
            released = self._ask("releasing the emergency stop", self._estop, SetBool.Request(data=False))
            if released is not None:
                released.add_done_callback(lambda _: self._tell(press.value, self._reset, Trigger.Request()))
            return
        client, request = self._calls[press]
        self._tell(press.value, client, request())

    def _tell(self, what: str, client: Any, request: Any) -> None:
        answer = self._ask(what, client, request)
        if answer is not None:
            answer.add_done_callback(lambda done: self._say_answer(what, done))

    def _ask(self, what: str, client: Any, request: Any) -> Future | None:
        if client.service_is_ready():
            return client.call_async(request)
        owner = "recorder_node" if client.srv_name.startswith("/vla/record") else "guard_node, at realtime pace"
        self._say(False, f"{what}: nobody offers {client.srv_name}; is {owner} running?")
        return None

    def _say_answer(self, what: str, done: Future) -> None:
        problem = done.exception()
        if problem is not None:
            self._say(False, f"{what}: {problem}")
        else:
            answer = done.result()
            self._say(answer.success, f"{what}: {answer.message or ('done' if answer.success else 'refused')}")
