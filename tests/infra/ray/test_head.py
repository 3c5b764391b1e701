"""A question to Ray's head ends, whatever becomes of the head: with its answer, or with what to do."""

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import ray

from vitpipe.infra.errors import Lost
from vitpipe.infra.ray import auth, head
from vitpipe.infra.ray.head import ask_head

LeadsTo = Callable[[str], None]


@pytest.fixture
def leads_to(monkeypatch: pytest.MonkeyPatch) -> LeadsTo:
    """Says where the head is; nobody has much patience."""
    monkeypatch.setattr(head, "ANSWER_S", 0.05)
    monkeypatch.setattr(auth, "PROBE_S", 0.5)

    def lead(address: str) -> None:
        monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address=address))

    return lead


@pytest.fixture
def silent() -> Iterator[threading.Event]:
    """Set at the end, so that no thread stays behind."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def alive() -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def test_an_answer_is_returned_and_an_error_raised(leads_to: LeadsTo) -> None:
    leads_to("127.0.0.1:1")
    assert ask_head("ask", lambda: 7) == 7

    def broken() -> Any:
        raise KeyError("x")

    with pytest.raises(KeyError):
        ask_head("ask", broken)


def test_a_head_that_is_killed_while_it_is_asked(leads_to: LeadsTo, silent: threading.Event) -> None:
    leads_to("127.0.0.1:1")
    with pytest.raises(Lost, match=r"list.*the cluster is gone \(no Ray answered.*[Rr]un the same command again"):
        ask_head("list machines", silent.wait)


def test_a_head_that_is_slow_is_waited_for(leads_to: LeadsTo, silent: threading.Event, alive: str) -> None:
    leads_to(alive)
    threading.Timer(1.0, silent.set).start()
    assert ask_head("list machines", silent.wait) is True
