"""Lets the page be used by itself only: what other sites in the same browser send to it is refused.

A page of another site can send requests to 127.0.0.1, and one whose name resolves to this machine (DNS rebinding) can also read
the answers. Such requests carry a foreign `Origin`, or a `Host` that is not this server's. Source: OWASP, Cross-Site Request
Forgery Prevention ("Verifying Origin With Standard Headers").
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

MOST_BYTES = 1 << 20  # of a request: the form is words and numbers


class OriginGuard:
    """An ASGI middleware that refuses foreign hosts and origins, uploads, and requests over `MOST_BYTES`.

    `host` is the address that is listened on. Numeric addresses are always allowed as `Host`: rebinding needs a name.
    """

    def __init__(self, app: App, host: str) -> None:
        self._app = app
        self._names = {"localhost", host.lower(), *({} if _is_local(host) else {socket.gethostname(), socket.getfqdn()})}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with one line and its status."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(scope, send, *refusal)
        elif scope["type"] == "websocket":
            await self._app(scope, receive, send)
        else:
            await _limited(self._app, scope, receive, send)

    def _refusal(self, scope: Message, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not self._known(host):
            return 421, f"this page is not served as {host!r}; open the address that stopdown play printed"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, f"requests of {origin!r} are refused; only the page itself may send them"
        if headers.get("sec-fetch-site") == "cross-site" and scope.get("method") != "GET":
            return 403, "requests of other sites are refused; only the page itself may send them"
        if "upload" in scope["path"].split("/"):
            return 403, "this page takes no uploads"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > MOST_BYTES:
            return 413, f"a request of {length[:20]} bytes; at most {MOST_BYTES} are taken"
        return None

    def _known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._names or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_local(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


async def _limited(app: App, scope: Message, receive: Receive, send: Send) -> None:
    """Pass a request on; one whose body grows beyond the limit is cut off, as if its sender had left."""
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        return {"type": "http.disconnect"} if taken > MOST_BYTES else message

    await app(scope, limited, send)


async def _answer(scope: Message, send: Send, status: int, words: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": words[:120]})
        return
    body = f"{words}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})
