"""The tutorial's first steps, typed as it says: its messages, its two edits, its plan."""

import os
import re
from pathlib import Path

import pytest
from drawn_photos import draw
from markdown_pages import ROOT, Page

from vitpipe.pipeline.cli import main as cli
from vitpipe.pipeline.cli.starters import write_starter
from vitpipe.pipeline.plan import given_machines

TUTORIAL = Page(ROOT / "docs/tutorial.md")


def printed() -> str:
    """All that the tutorial shows as printed."""
    return "\n".join(code.text for code in TUTORIAL.blocks() if code.language == "text")


def test_the_first_steps_say_what_the_tutorial_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(given_machines, "core_gflops", lambda: 85.0)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    draw(Path("photos"))
    write_starter(Path("my.yaml"), "small")

    def plan() -> list[str]:
        assert cli.invoke(["plan", "my.yaml"]) == 0
        return capsys.readouterr().out.replace(str(tmp_path), "/home/me").splitlines()

    shown, text = printed(), Path("my.yaml").read_text()
    first = plan()
    assert first[0] in shown and first[-1] in shown
    for before, after in (("root: ./images", "root: ./photos"), (r"splits: \{.*", "splits: folders")):
        assert f"`{after}`" in TUTORIAL.path.read_text()
        text, times = re.subn(before, after, text)
        assert times == 1
        Path("my.yaml").write_text(text)
        lines = plan()
        assert lines[0] in shown
    assert "4 classes: bowl, cup, plate, spoon; train 160, val 40" in lines[0]
    assert [line for line in lines if line not in shown] == []
