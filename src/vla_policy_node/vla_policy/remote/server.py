"""A policy bundle and clients on a websocket in, action chunks out: one policy, any number of robots.

Every client has its own history and instruction; the weights are shared. A wrong message gets an `error` message, and
the connection stays. How answers come about: `vla_policy.remote.answering`.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from vla_policy.errors import RemoteError
from vla_policy.remote.answering import Answering, Batching
from vla_policy.remote.session import Session
from vla_policy.remote.wire import MAX_MESSAGE_BYTES

LOGGER = logging.getLogger("vla_policy.remote")
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """host: only this machine by default. token: what a client must send as `Authorization: Bearer …`, if anything.

    most_clients: at once; one more is refused. idle_s: a client that says nothing for so long is let go.
    """

    host: str = LOOPBACK
    port: int = 8000
    token: str | None = None
    tls: ssl.SSLContext | None = None
    most_clients: int = 16
    idle_s: float = 600.0

    def refusal(self, authorization: str, clients: int) -> tuple[HTTPStatus, str] | None:
        """Status and words for a client that may not come in. authorization: its header. clients: that are in."""
        if self.token is not None and not hmac.compare_digest(authorization.encode(), f"Bearer {self.token}".encode()):
            return HTTPStatus.UNAUTHORIZED, "wrong or missing token: send the header 'Authorization: Bearer TOKEN'\n"
        if clients >= self.most_clients:
            return HTTPStatus.SERVICE_UNAVAILABLE, f"{clients} clients are connected, no more are served\n"
        return None


class PolicyServer:
    """Answers clients until `stop` is called. make_session, batching: see `Answering`."""

    def __init__(
        self,
        make_session: Callable[[], Session],
        options: ServerOptions | None = None,
        batching: Batching | None = None,
    ) -> None:
        self.options = options or ServerOptions()
        self.port = self.options.port
        self._make_session = make_session
        self._batching = batching
        self._answering: Answering | None = None
        self._clients = 0
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop`. on_ready: called when clients can come; `port` then holds the real one.

        Raises: RemoteError for a port that is taken.
        """
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._answering = Answering(self._make_session, self._batching)
        options = self.options
        try:
            server = await serve(
                self._client,
                options.host,
                options.port,
                ssl=options.tls,
                max_size=MAX_MESSAGE_BYTES,
                compression=None,
                process_request=self._admit,
            )
        except OSError as problem:
            raise RemoteError(
                f"{options.host}:{options.port}: {problem.strerror or problem}; choose another --host or --port"
            ) from None
        try:
            async with server:
                self.port = server.sockets[0].getsockname()[1]
                on_ready()
                await self._stop.wait()
        finally:
            await self._answering.close()

    def stop(self) -> None:
        """End `run`; may be called from any thread."""
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Health checks, and whether a client may come in."""
        if request.path == "/health":
            return connection.respond(HTTPStatus.OK, "ok\n")
        refusal = self.options.refusal(request.headers.get("Authorization", ""), self._clients)
        return None if refusal is None else connection.respond(*refusal)

    async def _client(self, connection: ServerConnection) -> None:
        self._clients += 1
        name = f"{connection.remote_address[0]}:{connection.remote_address[1]}"
        LOGGER.info("%s came", name)
        try:
            await self._converse(connection, await self._answering.open())
        except ConnectionClosed as problem:
            LOGGER.info("%s left: %s", name, problem)
        except TimeoutError:
            LOGGER.warning("%s said nothing for %g s and was let go", name, self.options.idle_s)
        finally:
            self._clients -= 1

    async def _converse(self, connection: ServerConnection, session: Session) -> None:
        while True:
            data = await asyncio.wait_for(connection.recv(), self.options.idle_s)
            reply = await self._answering.answer(session, data, lambda: connection.state is State.OPEN)
            if reply is not None:
                await connection.send(reply)
