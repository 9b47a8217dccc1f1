"""A served policy in, copies of it on a Ray cluster behind one address out: `serve BUNDLE --ray local --replicas 2`.

A client's websocket lives in one copy, its instruction and history with it. Imports Ray: `pip install "ray[serve]"`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import threading
from typing import Any

import ray
from ray import serve
from rich.console import Console
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from vla_policy.errors import ConfigError, RemoteError
from vla_policy.remote.answering import Answering
from vla_policy.remote.client import TOKEN_VARIABLE
from vla_policy.remote.serve import make_served
from vla_policy.remote.server import ServerOptions

LOGGER = logging.getLogger("vla_policy.remote")
NAME = "vla_policy"


async def _converse(websocket: WebSocket) -> None:
    """A client came to the replica of this process."""
    await serve.get_replica_context().servable_object.client(websocket)


async def _health(request: Request) -> PlainTextResponse:
    return PlainTextResponse("ok\n")


@serve.ingress(Starlette(routes=[Route("/health", _health), WebSocketRoute("/", _converse)]))
class Replica:
    """One copy of the policy, and its clients."""

    def __init__(self, options: argparse.Namespace, token: str | None) -> None:
        """options: of `serve.parse_arguments`. Raises: VlaError."""
        logging.basicConfig(level=logging.INFO)
        self._served = make_served(options)
        self._options = ServerOptions(token=token, most_clients=options.clients)
        self._clients = 0
        self._answering: Answering | None = None

    async def client(self, websocket: WebSocket) -> None:
        """Answer a client from its greeting to its leaving."""
        refusal = self._options.refusal(websocket.headers.get("authorization", ""), self._clients)
        if refusal is not None:
            status, words = refusal
            await websocket.send_denial_response(PlainTextResponse(words, status))
            return
        await websocket.accept()
        self._clients += 1
        try:
            await self._converse(websocket)
        except WebSocketDisconnect as problem:
            LOGGER.info("a client left: %s %s", problem.code, problem.reason)
        except TimeoutError:
            LOGGER.warning("a client said nothing for %g s and was let go", self._options.idle_s)
            await websocket.close()
        finally:
            self._clients -= 1

    async def _converse(self, websocket: WebSocket) -> None:
        if self._answering is None:  # it belongs to the loop that serves, which runs by now
            self._answering = Answering(self._served.make_session, self._served.batching)
        session = await self._answering.open()
        while True:
            message = await asyncio.wait_for(websocket.receive(), self._options.idle_s)
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1000), message.get("reason"))
            data = message.get("bytes")
            reply = await self._answering.answer(
                session, message.get("text", "") if data is None else data,
                lambda: websocket.client_state is WebSocketState.CONNECTED)
            if reply is not None:
                await websocket.send_bytes(reply)


def serve_on_ray(options: argparse.Namespace) -> None:
    """Serve until SIGINT or SIGTERM. options: of `serve.parse_arguments`. Raises: ConfigError, RemoteError."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, frame: ended.set())
    _start(options)
    try:
        actor = {"num_gpus": options.gpus} if options.gpus else {"num_cpus": 1}
        deployment = serve.deployment(Replica, name="policy", num_replicas=options.replicas, ray_actor_options=actor,
                                      max_ongoing_requests=options.clients)
        try:
            serve.run(deployment.bind(options, os.environ.get(TOKEN_VARIABLE) or None), name=NAME)
        except RuntimeError as problem:
            raise RemoteError(f"the policy did not come up on the Ray cluster: {str(problem).strip()}") from None
        scheme = "wss" if options.tls_certificate else "ws"
        Console().print(f"serving on {scheme}://{options.host}:{options.port}, {options.replicas} replicas")
        ended.wait()
    finally:
        serve.shutdown()
        ray.shutdown()


def _start(options: argparse.Namespace) -> None:
    """Ray Serve, listening. Raises: ConfigError where no cluster answers, RemoteError for a port that is taken."""
    try:
        ray.init(address=None if options.ray == "local" else options.ray, include_dashboard=False,
                 logging_level="error", log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as problem:
        raise ConfigError(f"--ray {options.ray}: no Ray cluster answers there ({problem}); start one by `ray start "
                          "--head`, or say --ray local") from None
    http: dict[str, Any] = {"host": options.host, "port": options.port}
    if options.tls_certificate:
        http |= {"ssl_certfile": str(options.tls_certificate), "ssl_keyfile": str(options.tls_key)}
    try:
        serve.start(http_options=http)
    except RuntimeError as problem:
        ray.shutdown()
        reason = str(problem).strip().splitlines()[-1]
        raise RemoteError(f"{options.host}:{options.port}: {reason}; choose another --host or --port") from None
