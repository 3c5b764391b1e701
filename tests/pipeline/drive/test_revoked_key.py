"""A key that is revoked under a run: told at the first refusal, ended by the stated time, and nothing is lost."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from s3_server import BUCKET, S3Server
from tiny_stages import HOOKS, tiny_spec, tiny_ways

from vitpipe.infra.errors import StorageError
from vitpipe.infra.events import Event
from vitpipe.infra.lease_state import Timing
from vitpipe.pipeline.drive.runner import run

pytestmark = pytest.mark.s3

QUICK = Timing(renew_s=0.05, watch_s=0.5, commit_s=100, poll_s=0.05, look_s=0.05, refused_s=1.0)
NODES: dict[str, Any] = {"a": {}, "b": {"needs": {"sources": ("a",)}}}
WHOLE = [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]
ALL = {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetObject", "s3:PutObject"], "Resource": WHOLE}


@pytest.fixture
def over() -> Iterator[threading.Event]:
    """Set once the driver has ended: until then a node's work goes on."""
    ended = threading.Event()
    yield ended
    ended.set()
    HOOKS.clear()
    for thread in threading.enumerate():
        if thread.name.startswith("node-"):
            thread.join()


def test_the_run_says_so_at_once_and_ends_with_7(
    s3_server: S3Server, s3_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over: threading.Event
) -> None:
    policy = json.dumps({"Version": "2012-10-17", "Statement": [ALL]})
    mine = s3_server.user("revoked", policy)
    spec = replace(tiny_spec(tmp_path, NODES), store=s3_uri)
    heard: list[Event] = []

    def revoke(ctx: Any) -> None:
        s3_server.revoke("revoked")
        over.wait(60)

    HOOKS["b"] = revoke
    with monkeypatch.context() as other:
        for name, value in mine.items():
            other.setenv(name, value)
        with pytest.raises(StorageError) as raised:
            run(spec, (), tiny_ways(timing=QUICK, on_event=heard.append))
        over.set()
    assert raised.value.code == 7 and "refused its driver for 1 s" in raised.value.found
    assert "it goes on from the last commit" in str(raised.value)
    (told,) = [event.text for event in heard if event.kind == "refused"]
    assert "S3 refused it: 403" in told and "committed: a;" in told and "the run ends 1 s from now with 7" in told
    HOOKS.clear()
    for name, value in s3_server.renew("revoked", policy).items():
        monkeypatch.setenv(name, value)
    assert set(run(spec, (), tiny_ways(timing=QUICK)).committed) == {"a", "b"}, "with another key it goes on"


def test_a_refusal_that_passes_ends_nothing(
    s3_server: S3Server, s3_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over: threading.Event
) -> None:
    """The control: rights that come back in time."""
    spec = replace(tiny_spec(tmp_path, NODES), store=s3_uri)
    heard: list[Event] = []
    said = threading.Event()

    def refuse(ctx: Any) -> None:
        with monkeypatch.context() as wrong:
            wrong.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
            assert said.wait(60)

    def hear(event: Event) -> None:
        heard.append(event)
        if event.kind == "refused":
            said.set()

    HOOKS["b"] = refuse
    patient = replace(QUICK, refused_s=60.0)
    assert set(run(spec, (), tiny_ways(timing=patient, on_event=hear)).committed) == {"a", "b"}
    assert [event.kind for event in heard].count("refused") == 1
