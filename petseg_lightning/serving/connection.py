"""Connections that end: those that are slow, idle, or too many."""

from asyncio import Transport
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

_HEAD = 10.0  # seconds in which the head of a request has to be here
_MOST = 64  # connections at a time


class Connection(H11Protocol):
    """HTTP/1.1 on one connection, which is closed where the client takes too long.

    Where there are too many, the one that has kept us waiting longest is closed, so that slow clients never shut out
    others. uvicorn itself ends idle connections only, and lets a client send a byte now and then for ever.

    Args:
        timeout: seconds in which the body of a request has to be here, and its answer has to be fetched.
        arguments: uvicorn's.
    """

    def __init__(self, *arguments: Any, timeout: float, **further: Any) -> None:
        super().__init__(*arguments, **further)
        self._timeout, self._since = timeout, 0.0
        self._request: RequestResponseCycle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = self.loop.time()
        self._watch()
        if len(self.connections) > _MOST:
            waiting = [c for c in self.connections if isinstance(c, Connection) and c._patience is not None]
            min(waiting, key=lambda c: c._since)._end()

    @property
    def _patience(self) -> float | None:
        """Seconds that the client has for what it is doing; None while it waits for us."""
        if self.cycle is not None and self.cycle.more_body and not self.cycle.response_complete:
            return self._timeout
        if self.transport.get_write_buffer_size() > 0:
            return self._timeout
        if self.cycle is None or self.cycle.response_complete:
            return min(_HEAD, self._timeout)
        return None

    def _watch(self) -> None:
        if self not in self.connections:
            return
        now, patience = self.loop.time(), self._patience
        if patience is None or self.cycle is not self._request:
            self._request, self._since = self.cycle, now
        if patience is not None and now - self._since > patience:
            self._end()
        else:
            self.loop.call_later(1, self._watch)

    def _end(self) -> None:
        self.connections.discard(self)  # at once: the transport reports it later only
        self.transport.abort()
