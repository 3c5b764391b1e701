"""The setting that makes processes die for tests: it does what is asked there, once, and nobody runs with it."""

import json
from pathlib import Path

import pytest

from vitpipe.infra.errors import StorageError
from vitpipe.infra.faults import SETTING, reach
from vitpipe.pipeline.cli.main import invoke


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fault = {"point": "save:copy", "step": 6, "rank": 1, "do": "raise", "once": str(tmp_path / "mark")}
    monkeypatch.setenv(SETTING, json.dumps([fault]))
    return tmp_path / "mark"


def test_it_happens_there_and_once(asked: Path) -> None:
    for elsewhere in (("save:write", 6, 1), ("save:copy", 3, 1), ("save:copy", 6, 0)):
        reach(*elsewhere)
    assert not asked.exists()
    with pytest.raises(StorageError, match="asked to fail here"):
        reach("save:copy", 6, 1)
    reach("save:copy", 6, 1)


def test_the_command_line_refuses_it(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["schema"]) == 2
    assert f"Unset {SETTING}" in capsys.readouterr().err.replace("\n", " ")


def test_without_it_nothing_happens(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(SETTING, raising=False)
    reach("save:copy", 6, 1)
    assert invoke(["schema"]) == 0 and capsys.readouterr().out
