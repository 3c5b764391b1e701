"""The notebooks of `docs/notebooks`, run one after the other in a folder of their own, as a reader does."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import notebooks
import pytest

FOLDER = Path(__file__).parents[2] / "docs/notebooks"
IN_ORDER = ("own-photographs", "weights-from-elsewhere", "stream-in-your-own-loop")


def run(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "XDG_STATE_HOME": str(folder / "state")}
    command = [sys.executable, notebooks.__file__, str(FOLDER / f"{name}.ipynb")]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def shape(text: str) -> str:
    """A cell's text without its numbers, which another processor may round otherwise."""
    return re.sub(r"\d+(\.\d+)?", "#", text)


def stored(name: str) -> list[str]:
    content = json.loads((FOLDER / f"{name}.ipynb").read_text())
    return [notebooks.text_of(cell) for cell in notebooks.code_cells(content)]


@pytest.mark.ray
def test_each_runs_and_prints_what_is_stored_in_it(tmp_path: Path) -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(IN_ORDER)
    missed = run(IN_ORDER[1], tmp_path)
    assert missed.returncode and "UsageError" in missed.stderr, "the control: without the first one's run it fails"
    for name in IN_ORDER:
        done = run(name, tmp_path)
        assert done.returncode == 0, done.stderr
        shown = json.loads(done.stdout)
        assert list(map(shape, shown)) == list(map(shape, stored(name))), f"{name} has other outputs than are stored"


def test_no_notebook_shows_a_place_of_the_machine_that_wrote_it() -> None:
    for name in IN_ORDER:
        text = (FOLDER / f"{name}.ipynb").read_text()
        assert len(text) < 40_000 and not re.search(r"/tmp/|/home/|/root/|/work/", text)
