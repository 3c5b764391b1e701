"""A signal that comes twice at once is one wish; one that comes again later is another."""

import os
import signal

import pytest

from vitpipe.infra.errors import Stopped
from vitpipe.pipeline.drive import signals
from vitpipe.pipeline.drive.signals import Signals


@pytest.mark.parametrize(("apart_s", "heard"), [(0.001, 1), (0.19, 1), (0.21, 2), (30.0, 2)])
def test_signals_at_once_are_one(monkeypatch: pytest.MonkeyPatch, apart_s: float, heard: int) -> None:
    now, names = [100.0], []
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    with Signals() as listening:
        listening.tell(names.append)
        os.kill(os.getpid(), signal.SIGTERM)
        now[0] += apart_s
        os.kill(os.getpid(), signal.SIGTERM)
    assert names == ["SIGTERM"] * heard


def test_before_anything_is_started_it_ends_the_command() -> None:
    with Signals(), pytest.raises(Stopped, match="SIGTERM came before"):
        os.kill(os.getpid(), signal.SIGTERM)
