"""An HTTP proxy before a real S3 server that breaks what passes, one planned fault after another."""

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from vitpipe.infra.retry import RetryPolicy
from vitpipe.infra.storage import traffic

XML_ERROR = '<?xml version="1.0"?><Error><Code>{}</Code><Message>made by the test</Message></Error>'


@dataclass
class Fault:
    """What to do to the next `times` requests of `method` whose path contains `path`."""

    kind: str
    """status: answer `status` unasked · lost: carry it out, then hang up without an answer · refused: hang up
    before · short: hang up half way through the body · cut: half the body, its length adapted · flip: one bit of the
    body · flip_up: one bit of the request's body · stall: never answer · drip: `pace_s` for each byte of the body ·
    xml: 200 with an error as body · late: carried out after `pace_s` · call: carried out once `then` has returned
    """
    method: str = ""
    path: str = ""
    times: int = 1
    status: int = 503
    pace_s: float = 0.2
    client: str = ""
    """The address that asks; any when empty."""
    then: Callable[[], object] = bool


@dataclass
class Proxy:
    """Where the proxy listens, what it is going to break, and what passed (`METHOD path`, headers)."""

    endpoint: str
    upstream: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, kind: str, **what: Any) -> None:
        self.faults.append(Fault(kind, **what))

    def next_fault(self, method: str, path: str, headers: dict[str, str]) -> Fault | None:
        with self._lock:
            self.requests.append((f"{method} {path}", headers))
            for fault in self.faults:
                asks = fault.method in ("", method) and fault.client in ("", headers["Client"])
                if fault.times and asks and fault.path in path:
                    fault.times -= 1
                    return fault
        return None


@pytest.fixture(scope="module")
def one_proxy(s3_server: Any) -> Iterator["Proxy"]:
    with s3_proxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def proxy(one_proxy: "Proxy", s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> "Proxy":
    """Before the server of `s3_uri`, with nothing planned; our store asks through it, insists at a quicker pace, and
    is soon out of patience (a dozen faults in a row last 6 s at most)."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", one_proxy.endpoint)
    monkeypatch.setenv("VITPIPE_STORAGE_DEADLINE_S", "20")
    monkeypatch.setenv("VITPIPE_STORAGE_STALL_S", "0.5")
    patience = RetryPolicy.from_environment
    monkeypatch.setattr(RetryPolicy, "from_environment", lambda: replace(patience(), pause_s=0.05, longest_pause_s=0.4))
    one_proxy.faults.clear()
    one_proxy.requests.clear()
    return one_proxy


@pytest.fixture
def retries() -> Iterator[list[float]]:
    """Grows by an entry with each request that was made again."""
    seen: list[float] = []
    traffic.listen(count := lambda kind, amount: seen.append(amount) if kind == "retries" else None)
    yield seen
    traffic.unlisten(count)


@contextmanager
def s3_proxy(
    upstream: str, address: str = "127.0.0.1", there: Callable[[Callable[[], Any]], Any] = lambda make: make()
) -> Iterator[Proxy]:
    """Run a proxy to `upstream` (http://host:port) while the block lasts; `there` calls what makes its socket."""
    server = there(lambda: ThreadingHTTPServer((address, 0), _Handler))
    server.daemon_threads = True
    proxy = Proxy(f"http://{address}:{server.server_address[1]}", upstream)
    server.proxy = proxy
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body written after its head would wait 40 ms for the other side

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def _pass(self) -> None:
        proxy: Proxy = self.server.proxy  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = {**dict(self.headers.items()), "Client": self.client_address[0]}
        fault = proxy.next_fault(self.command, self.path, asked) or Fault("none")
        if fault.kind == "refused":
            return self._hang_up()
        if fault.kind == "stall":
            proxy.closing.wait(30)
            return self._hang_up()
        if fault.kind in ("status", "xml"):
            error = XML_ERROR.format("AccessDenied" if fault.status == 403 else "InternalError").encode()
            self._answer(fault.status if fault.kind == "status" else 200, {}, error)
            return None
        if fault.kind == "late":
            proxy.closing.wait(fault.pace_s)
        if fault.kind == "call":
            fault.then()
        if fault.kind == "flip_up":
            body = flipped(body)
        status, headers, data = self._forward(proxy.upstream, body)
        if fault.kind == "lost":
            return self._hang_up()
        self._answer(status, headers, data, fault)
        return None

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass

    def _forward(self, upstream: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        where = urlsplit(upstream)
        assert where.hostname
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=30)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: dict[str, str], data: bytes, fault: Fault | None = None) -> None:
        kind = fault.kind if fault else ""
        if kind == "cut":
            data = data[: len(data) // 2]
        if kind == "flip":
            data = flipped(data)
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = headers.get("Content-Length", str(len(data))) if self.command == "HEAD" else str(len(data))
        if status not in (204, 304):
            self.send_header("Content-Length", length)
        self.end_headers()
        if self.command == "HEAD":
            return
        if kind == "short":
            self.wfile.write(data[: len(data) // 2])
            return self._hang_up()
        if fault and kind == "drip":
            self._drip(data, fault.pace_s)
        else:
            self.wfile.write(data)

    def _drip(self, data: bytes, pace_s: float) -> None:
        for byte in data:
            try:
                self.wfile.write(bytes([byte]))
            except OSError:  # the reader lost patience, as it should
                self.close_connection = True
                return
            time.sleep(pace_s)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


def flipped(data: bytes) -> bytes:
    """The data with one bit in its middle turned."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else data
