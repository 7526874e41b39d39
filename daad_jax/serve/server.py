"""Runs the service on a socket: uvicorn, with limits on heads and an end that answers everyone."""

import asyncio
import contextlib
import json
import logging
import signal
import socket
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from daad_jax.errors import ConfigError
from daad_jax.runtime import signals
from daad_jax.serve.app import build_app
from daad_jax.serve.service import Service

_HEAD_BYTES = 64 << 10
_HEAD_SECONDS = 10.0
# After an answer that came before its request's end, the rest is read and dropped for so long:
# closing at once would reset the connection, and the client might never see the answer.
_REST_SECONDS = 2.0
_WRITE_SECONDS = 60.0  # how long a client may read nothing of its answer
_DRAIN_SECONDS = 0.5  # for requests that are on their way on open connections
_BACKLOG = 2048


class _Protocol(HttpToolsProtocol):
    """uvicorn's connection, with limits on heads and on clients that do not read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # any unsent byte counts
        self._timer: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._head, self._head_bytes = True, 0
        self._close_after(_HEAD_SECONDS)

    def data_received(self, data: bytes) -> None:
        if self._head:
            self._head_bytes += len(data)
            if self._timer is None:
                self._close_after(_HEAD_SECONDS)
        super().data_received(data)
        if self._head and self._head_bytes > _HEAD_BYTES and not self.transport.is_closing():
            self._refuse("431 Request Header Fields Too Large")

    def on_headers_complete(self) -> None:
        self._head = False
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._head, self._head_bytes = True, 0
        self._stop_timer()
        super().on_message_complete()
        if self.cycle.response_complete:  # its keep-alive timer ended with the rest of the body
            self._close_after(_HEAD_SECONDS)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._head and not self.pipeline and not self.transport.is_closing():
            self._close_after(_REST_SECONDS)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(_WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_stalled()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_stalled()
        super().connection_lost(exc)

    def _close_after(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        if self._head and self.cycle is not None and not self.cycle.response_complete:
            self._close_after(_HEAD_SECONDS)  # a further request waits for this one's answer
        elif self._head and self._head_bytes:
            self._refuse("408 Request Timeout")
        else:
            self.transport.close()

    def _refuse(self, status: str) -> None:
        detail = json.dumps({"detail": f"{status[4:]}: the head of the request"}).encode()
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(f"{head}content-length: {len(detail)}\r\n\r\n".encode() + detail)
        self.transport.close()

    def _stop_stalled(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Reload:
    """Whether someone has asked to load the model's file again. Within its context SIGHUP does."""

    def __init__(self) -> None:
        """Attributes: `asked`."""
        self.asked = False

    def __enter__(self) -> "Reload":
        main = threading.current_thread() is threading.main_thread()
        self._usable = main and hasattr(signal, "SIGHUP")
        if self._usable:
            self._before = signal.signal(signal.SIGHUP, self._ask)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._usable:
            signal.signal(signal.SIGHUP, self._before)

    def _ask(self, *_: object) -> None:
        self.asked = True


class Server(uvicorn.Server):
    """uvicorn's server; signals are those of `daad_jax.runtime.signals`."""

    def __init__(self, service: Service, token: str | None, reload: Reload) -> None:
        """Takes what to serve, and who asks to load the model's file again."""
        super().__init__(
            uvicorn.Config(
                build_app(service, token),
                http=_Protocol,
                ws="none",
                loop="asyncio",
                lifespan="off",
                access_log=False,
                log_config=None,
                log_level="error",
                proxy_headers=False,
                server_header=False,
                backlog=_BACKLOG,
                timeout_graceful_shutdown=round(2 * service.limits.seconds),
            )
        )
        self._service, self._reload = service, reload
        self._reloading: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Takes none."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Begins a reload if one was asked for. Returns whether to stop."""
        if self._reload.asked and (self._reloading is None or self._reloading.done()):
            self._reload.asked = False
            self._reloading = asyncio.create_task(self._service.reload())
        return signals.requested() or await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes no more connections, and answers every request that has come."""
        self._service.draining = True
        late = [one for listener in sockets or [] for one in _accept_all(listener)]
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for connection in late:
            await loop.connect_accepted_socket(self._protocol, connection)
        end = loop.time() + _DRAIN_SECONDS
        while self.server_state.connections and loop.time() < end:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)
        self._service.close()

    def _protocol(self) -> Any:
        state = self.lifespan.state
        return _Protocol(config=self.config, server_state=self.server_state, app_state=state)


def bind(host: str, port: int) -> socket.socket:
    """A socket at an address, which does not listen yet.

    Raises ConfigError if the address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.setblocking(False)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"--host, --port: {host}:{port} cannot be used ({reason}); give another"
        ) from error
    return bound


def serve(service: Service, bound: socket.socket, token: str | None, reload: Reload) -> None:
    """Serves until SIGTERM or SIGINT, then answers what has come and returns."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a line for each broken form
    warnings.filterwarnings("ignore", module="PIL")  # of damaged pictures
    with contextlib.suppress(ImportError, ValueError, OSError):  # of systems without it
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65536)), hard))
    Server(service, token, reload).run([bound])


def _accept_all(listener: socket.socket) -> Iterator[socket.socket]:
    """The connections that the kernel has accepted; closing the listener would reset them."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            yield connection
