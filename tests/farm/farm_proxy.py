"""A proxy before a server that speaks S3, which drops headers, answers with errors or damages what is uploaded."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

Trouble = Callable[[str, str, bytes], int | bytes | None]


class Proxy(ThreadingHTTPServer):
    """Forwards to an endpoint. `trouble` gets method, path and body: a number is the error to answer with, bytes are sent on
    in the place of the body, None changes nothing. Header names in `dropped` are not sent on."""

    daemon_threads = True

    def __init__(self, endpoint: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = urlsplit(endpoint).netloc
        self.dropped: set[str] = set()
        self.trouble: Trouble = lambda method, path, body: None
        self.requests: list[tuple[str, str, dict[str, str]]] = []

    @property
    def endpoint(self) -> str:
        """The URL to use in the place of the server's."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in self.server.dropped}
        self.server.requests.append((self.command, self.path, {name.lower(): value for name, value in headers.items()}))
        answer = self.server.trouble(self.command, self.path, body)
        if isinstance(answer, int):
            self._say(answer, {}, b"<Error><Code>SlowDown</Code></Error>")
            return
        connection = http.client.HTTPConnection(self.server.behind)
        headers["Content-Length"] = str(len(body if answer is None else answer))
        connection.request(self.command, self.path, body if answer is None else answer, headers)
        reply = connection.getresponse()
        data = reply.read()
        self._say(reply.status, dict(reply.getheaders()), data)
        connection.close()

    def _say(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = headers.get("Content-Length", str(len(data))) if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else data)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def proxied(endpoint: str) -> Iterator[Proxy]:
    """Run a proxy before an endpoint."""
    with Proxy(endpoint) as proxy:
        thread = Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
