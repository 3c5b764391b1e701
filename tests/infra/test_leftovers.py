"""What killed drivers left is removed by the next one, and nothing else is."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from vitpipe.infra.lease_state import Holder
from vitpipe.infra.ray import leftovers
from vitpipe.infra.ray.leftovers import MARK, driver_folder, sweep

DEAD = replace(Holder.me(), start_time=1)
"""This process's number, and a start time that it had not."""
SESSION = "session_2026-01-01_10-00-00_000001"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of our own: the machine's is full of other people's Rays."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    return tmp_path


def left(home: Path, who: Holder, session: str | None = None) -> tuple[Path, Path]:
    """What a driver has: its folder with one of Python's in it, and Ray's session."""
    made = driver_folder()
    (made.path / "pymp-abcd1234").mkdir()
    where = home / "ray" / (session or f"{SESSION}_{who.pid}")
    (where / "logs").mkdir(parents=True)
    replace(made, who=who).names(str(where))
    return made.path, where


def test_of_a_dead_driver_both_folders_go(home: Path) -> None:
    folder, session = left(home, DEAD)
    beside = home / "ray" / f"{SESSION}_{DEAD.pid + 1}"
    beside.mkdir()
    assert sweep() == [session, folder]
    assert not session.exists() and not folder.exists() and beside.exists()
    assert sweep() == []


def elsewhere(**fields: str) -> Holder:
    return replace(DEAD, **fields)


@pytest.mark.parametrize(
    "who",
    [Holder.me(), elsewhere(boot_id="another"), elsewhere(pid_ns="pid:[1]"), elsewhere(boot_id="")],
    ids=["living", "another-machine", "another-container", "nameless-machine"],
)
def test_of_who_is_not_provably_dead_nothing_goes(who: Holder, home: Path) -> None:
    folder, session = left(home, who)
    assert sweep() == [] and folder.exists() and session.exists()


def into_a_link(home: Path, folder: Path, session: Path) -> None:
    target = home / "precious"
    session.rename(target)
    session.symlink_to(target)


def of_another(home: Path, folder: Path, session: Path) -> None:
    os.chown(session, 12345, 12345)


def under_another_name(home: Path, folder: Path, session: Path) -> None:
    session.rename(home / "ray" / "precious")
    (folder / MARK).write_text(json.dumps({"who": asdict(DEAD), "session": str(home / "ray" / "precious")}))


def of_another_driver(home: Path, folder: Path, session: Path) -> None:
    other = home / "ray" / f"{SESSION}_{DEAD.pid + 1}"
    session.rename(other)
    (folder / MARK).write_text(json.dumps({"who": asdict(DEAD), "session": str(other)}))


@pytest.mark.parametrize("change", [into_a_link, under_another_name, of_another_driver, of_another])
def test_a_note_cannot_name_what_is_not_this_drivers(change: Callable[[Path, Path, Path], None], home: Path) -> None:
    if change is of_another and os.geteuid():
        pytest.skip("only root may give a folder away")
    folder, session = left(home, DEAD)
    before = {path for path in home.rglob("*") if "vitpipe" not in str(path)}
    change(home, folder, session)
    kept = {path for path in home.rglob("*") if "vitpipe" not in str(path)}
    assert before
    assert sweep() == [folder]
    assert {path for path in home.rglob("*") if "vitpipe" not in str(path)} == kept


def test_a_session_whose_ray_still_ends_is_left_for_later(home: Path) -> None:
    folder, session = left(home, DEAD)
    code = "import sys, time; sys.stdout.write('x'); sys.stdout.flush(); time.sleep(600)"
    raylet = subprocess.Popen([sys.executable, "-c", code, f"--session-dir={session}"], stdout=subprocess.PIPE)
    try:
        assert raylet.stdout and raylet.stdout.read(1) == b"x"
        assert sweep() == [] and session.exists()
    finally:
        raylet.kill()
        raylet.communicate()
    assert sweep() == [session, folder]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"who": {}, "session": ""}'])
def test_a_damaged_note_removes_nothing(text: str, home: Path) -> None:
    folder, session = left(home, DEAD)
    (folder / MARK).write_text(text)
    assert sweep() == [] and folder.exists() and session.exists()


def test_the_folder_of_another_user_is_not_looked_at(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, session = left(home, DEAD)
    monkeypatch.setattr(leftovers, "_ours", lambda path: path != folder.parent)
    assert sweep() == [] and folder.exists() and session.exists()
