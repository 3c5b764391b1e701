"""The command line on real runs of two small stages, in this process and without Ray."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Vitpipe, typed
from tiny_stages import HOOKS, STAGES, in_process

from vitpipe.infra.lease_state import Timing
from vitpipe.pipeline.drive import runner
from vitpipe.pipeline.spec.catalog import CATALOG

QUICK = Timing(renew_s=0.02, watch_s=0.5, commit_s=100, poll_s=0.02, look_s=0.02)


@pytest.fixture
def vitpipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Vitpipe]:
    """Runs a command in an empty folder; its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name, stage in STAGES.items():
        monkeypatch.setitem(CATALOG, name, stage)
    real = runner.run

    def here(spec: Any, replacing: Any, ways: Any) -> runner.Outcome:
        return real(spec, replacing, replace(ways, connect=in_process, metrics_at=lambda: None, timing=QUICK))

    monkeypatch.setattr(runner, "run", here)

    yield typed(capsys)
    HOOKS.clear()
