"""What is refused before a request is looked at: foreign hosts and pages, and bodies that are too large or too slow."""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Iterable

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

WRAPPING = 100_000  # bytes of a request beside its file
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::\d{1,5})?")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def own_names(host: str, further: Iterable[str]) -> set[str]:
    """The names by which the app may be called, beside the address on which a connection came in.

    A web page of somebody else can let its own name point to this machine, and read what is answered under it; so
    only known names are answered.

    Args:
        host: what is listened on.
        further: names that the user gave.
    """
    names = {"localhost", "127.0.0.1", "::1", host, *further}
    if not _is_loopback(host):
        names |= {socket.gethostname(), f"{socket.gethostname()}.local"}
    return {name.lower() for name in names}


class Guard:
    """Refuses what is not for this app, in one line, and adds what browsers should know to every answer.

    Args:
        app: what gets the other requests.
        names: of `own_names`.
        max_bytes: of a body.
        timeout: seconds in which a body has to be here.
    """

    def __init__(self, app: ASGIApp, names: set[str], max_bytes: int, timeout: float) -> None:
        self.app, self.names, self.max_bytes, self.timeout = app, names, max_bytes, timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refused = self._refuse(scope, Headers(scope=scope))
        if refused is not None:
            return await refused(scope, receive, send_with_headers)
        try:
            await self.app(scope, self._limited(receive), send_with_headers)
        except asyncio.CancelledError:  # the server ends, and waits no longer
            if not begun:
                await _refusal(503, "the server ends")(scope, receive, send_with_headers)
        return None

    def _refuse(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        host = headers.get("host", "").lower()
        match = _HOST.fullmatch(host)
        name = match and (match[1] or match[2])
        here = scope["server"][0] if scope.get("server") else None
        if name is None or (name not in self.names and name != here):
            advice = f"; where it is one, start the app with hosts=[{name}]" if name else ""
            return _refusal(421, f"the Host of the request is not a name of this app{advice}")
        origin = headers.get("origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            return _refusal(403, "the request comes from a page of another site")
        opens_page = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not opens_page:
            return _refusal(403, "the request comes from a page of another site")
        if "transfer-encoding" in headers:
            return _refusal(411, "the request does not say how long it is: give Content-Length", Connection="close")
        if int(headers.get("content-length", 0)) > self.max_bytes:
            return _refusal(413, self._too_large())
        return None

    def _limited(self, receive: Receive) -> Receive:
        total, complete = 0, False
        deadline = asyncio.get_running_loop().time() + self.timeout

        async def limited() -> Message:
            nonlocal total, complete
            try:
                async with asyncio.timeout_at(None if complete else deadline):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(408, f"the request was not here within {self.timeout:g} seconds") from error
            complete = not message.get("more_body", False)
            total += len(message.get("body", b""))
            if total > self.max_bytes:
                raise HTTPException(413, self._too_large())
            return message

        return limited

    def _too_large(self) -> str:
        return f"the picture has more than {(self.max_bytes - WRAPPING) / 2**20:g} MB; save it smaller"


def _refusal(status: int, detail: str, **headers: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
