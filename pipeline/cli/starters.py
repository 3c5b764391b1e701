"""Commented YAML to begin with, one file a preset in `presets/`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitpipe.infra.errors import StorageError, UsageError
from vitpipe.infra.full_disk import is_full

FOLDER = Path(__file__).parent / "presets"
DEFAULT = "folder"
SMALL = "small"
"""What `init --small` writes."""


def presets() -> list[str]:
    """List the presets' names."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def write_starter(path: Path, preset: str = DEFAULT) -> None:
    """Write a preset to a new file. UsageError for an unknown preset, a file that is there, or no place for it.

    StorageError for a disk without room, which leaves no file.
    """
    if preset not in presets():
        listed = ", ".join(presets())
        raise UsageError(f"begin from the preset {preset!r}", f"there are {listed}", "choose one of them")
    text = (FOLDER / f"{preset}.yaml").read_text(encoding="utf-8")
    try:
        with path.open("x", encoding="utf-8") as file, _none_left(path):
            file.write(text)
            file.flush()
    except FileExistsError:
        raise UsageError(f"write {path}", "something of that name is there", "choose another path") from None
    except OSError as error:
        if is_full(error):
            raise StorageError(f"write {path}", str(error.strerror), "make room there, then run again") from None
        raise UsageError(f"write {path}", str(error.strerror), "choose another path") from None


@contextmanager
def _none_left(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError:
        path.unlink(missing_ok=True)
        raise
