"""Serves one page on this machine to whoever has its token. Reads nothing of a request but its method, path and cookie.

Knows no run: a page is a function. Nothing can be changed through it.
"""

import secrets
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from vitpipe.infra.errors import VitpipeError

HOST = "127.0.0.1"
DEFAULT_PORT = 8270
QUIET_S = 15.0
"""A connection that says nothing for so long is closed."""
_NAMES = ("127.0.0.1", "localhost", "[::1]")
"""Hosts that a browser may ask for: another name that leads here is somebody else's page (DNS rebinding)."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class PageServer(ThreadingHTTPServer):
    """Serves `page` at `url`, which has the token in it; a browser keeps that as a cookie for as long as it is open."""

    daemon_threads = True

    def __init__(self, page: Callable[[], str], port: int) -> None:
        super().__init__((HOST, port), _Handler)
        self.page, self.token = page, secrets.token_urlsafe(24)
        self.cookie = f"vitpipe-board-{self.server_port}"
        self.url = f"http://{HOST}:{self.server_port}/?token={self.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    timeout = QUIET_S
    server_version, sys_version = "vitpipe", ""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _refused(self) -> None:
        self._send(405, "This page can only be read.", {"Allow": "GET, HEAD"})

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_CONNECT = do_TRACE = _refused

    def _answer(self, with_body: bool) -> None:
        asked = urlsplit(self.path)
        given = parse_qs(asked.query).get("token", [""])[0]
        if self._host() not in _NAMES:
            self._send(403, "Ask for 127.0.0.1 or localhost.")
        elif given and self._is_token(given) and asked.path == "/":
            kept = f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Strict; Path=/"
            self._send(303, "", {"Location": "/", "Set-Cookie": kept})  # the token leaves the address bar
        elif not self._is_token(self._kept()):
            self._send(403, "Open the address that `vitpipe board` printed: it has the token.")
        elif asked.path != "/":
            self._send(404, "There is one page: /")
        else:
            try:
                page = self.server.page()
            except VitpipeError as error:
                self._send(503, str(error))
                return
            self._send(200, page if with_body else "", kind="text/html")

    def _host(self) -> str:
        host = self.headers.get("Host", "")
        return host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self.server.token.encode())

    def _kept(self) -> str:
        try:
            found = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie)
        except CookieError:
            return ""
        return found.value if found else ""

    def _send(self, code: int, text: str, more: dict[str, str] | None = None, kind: str = "text/plain") -> None:
        body = text.encode("utf-8", errors="backslashreplace")
        self.send_response(code)
        for name, value in (_HEADERS | (more or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests have the token in them: none is logged."""
