"""A real file system with little room, which a test fills and makes room on while something runs."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class SmallDisk:
    path: Path

    def fill(self) -> None:
        """To the last byte."""
        with suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while file.write(bytes(2**16)):
                pass
        with suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while file.write(b"0"):
                pass

    def make_room(self) -> None:
        self._filler.unlink(missing_ok=True)

    @property
    def _filler(self) -> Path:
        return self.path / "filler"


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[SmallDisk]:
    """Mounted at `path`; skips where a user may not mount."""
    path.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
