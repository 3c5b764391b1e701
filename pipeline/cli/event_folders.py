"""A local folder of TensorBoard's event files that follows runs: a run's node, or trial, is one run of TensorBoard.

Where an attempt begins anew, its file is replaced by another, so that no step stands there twice.
"""

import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vitpipe.infra import curves as live
from vitpipe.infra.errors import StorageError
from vitpipe.pipeline.store.followed import Look
from vitpipe.stages.training.measure.event_file import OURS, EventFile

DEFAULT_PORT = 6006
HOST = "127.0.0.1"


@dataclass
class _Shown:
    """One line of TensorBoard's list of runs."""

    attempt: str
    file: EventFile
    last: dict[str, int] = field(default_factory=dict)
    """The newest step that was written, by tag."""


class EventFolders:
    """Files below one folder, `{run}/{node}[/{trial}]/`; what others put there is left alone."""

    def __init__(self, folder: Path) -> None:
        """Make the folder. StorageError where that cannot be."""
        self.folder = folder.absolute()
        with _told(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._shown: dict[tuple[str, str, str], _Shown] = {}
        self._begun = 0
        self.points = 0
        """Values that were written."""

    def clear(self, name: str) -> None:
        """Remove the files that an earlier command left of a run."""
        with _told(self.folder):
            for path in sorted((self.folder / name).rglob(f"*{OURS}")):
                path.unlink(missing_ok=True)

    def show(self, look: Look) -> None:
        """Write what a run's curves gained. StorageError where the folder takes no file."""
        with _told(self.folder):
            for node, found in look.curves.items():
                for of, tags in found.lines.items():
                    self._write((look.name, node, of), found.attempt, tags)
                for key in [key for key in self._shown if key[:2] == (look.name, node) and key[2] not in found.lines]:
                    self._drop(key)

    def _write(self, key: tuple[str, str, str], attempt: str, tags: Mapping[str, tuple[live.CurvePoint, ...]]) -> None:
        shown = self._shown.get(key)
        if shown is None or shown.attempt != attempt:
            shown = self._begin(key, attempt)
        rows: dict[tuple[int, float], dict[str, float]] = {}
        for tag, line in tags.items():
            last = shown.last.get(tag)
            for point in line:
                if last is None or point.step > last:
                    rows.setdefault((point.step, point.clock), {})[tag] = point.value
            if line:
                shown.last[tag] = max(line[-1].step, -1 if last is None else last)
        if not rows:
            return
        with shown.file as file:
            for (step, clock), values in sorted(rows.items()):
                file.add(step, clock, values)
                self.points += len(values)

    def _begin(self, key: tuple[str, str, str], attempt: str) -> _Shown:
        """Begin a file, then remove the one before: TensorBoard goes on to the newer and forgets what it had read."""
        self._begun += 1
        before = self._shown.get(key)
        folder = self.folder.joinpath(*(part for part in key if part))
        self._shown[key] = _Shown(attempt, EventFile(folder, self._begun))
        if before:
            before.file.path.unlink(missing_ok=True)
        return self._shown[key]

    def _drop(self, key: tuple[str, str, str]) -> None:
        self._shown.pop(key).file.path.unlink(missing_ok=True)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        do = "name another folder with --to, or make room"
        raise StorageError(f"write event files into {folder}", error.strerror or str(error), do) from error


def command(folder: Path, port: int) -> list[str]:
    """Write the command that serves a folder on this machine alone."""
    about = ["--logdir", str(folder), "--host", HOST, "--port", str(port), "--reload_interval", "5"]
    return [sys.executable, "-m", "tensorboard.main", *about]


def shown_command(folder: Path, port: int) -> str:
    """The same as a person types it."""
    return shlex.join(["tensorboard", *command(folder, port)[3:7], "--port", str(port)])


def free_port(asked: int | None, default: int, what: str) -> int:
    """Choose a port: the one that is asked for, else the default, else any. StorageError when the first is taken."""
    for port in (default, 0) if asked is None else (asked,):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                if asked is None:
                    continue
                do = "give another with --port, or leave it out and take the one that is free"
                raise StorageError(f"serve {what} on port {asked}", error.strerror or str(error), do) from error
            return int(probe.getsockname()[1])
    raise StorageError(f"serve {what}", "this machine has no free port", "end what holds them")


class Server:
    """A TensorBoard of our own, ended with its block."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"http://{HOST}:{port}/"
        self._log = (folder / "tensorboard.log").open("wb")
        self._process = subprocess.Popen(command(folder, port), stdout=self._log, stderr=self._log)

    def check(self) -> None:
        """StorageError when it has ended."""
        if (code := self._process.poll()) is not None:
            said = Path(self._log.name).read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            do = f"see {self._log.name}; --once writes the files alone"
            raise StorageError("serve TensorBoard", f"it ended with {code}: {said[-1]}", do)

    def close(self) -> None:
        """End it, by its process alone."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
