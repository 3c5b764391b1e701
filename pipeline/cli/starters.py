"""Commented YAML to begin with, one file a preset in `presets/`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitpipe.infra.errors import StorageError, UsageError
from vitpipe.infra.full_disk import is_full

FOLDER = Path(__file__).parent / "presets"
DEFAULT = "folder"


def presets() -> dict[str, str]:
    """List the presets: name -> the sentence that its file opens with."""
    return {path.stem: _sentence(path) for path in sorted(FOLDER.glob("*.yaml"))}


def write_starter(path: Path, preset: str = DEFAULT) -> None:
    """Write a preset to a new file. UsageError for an unknown preset, a file that is there, or no place for it.

    StorageError for a disk without room, which leaves no file.
    """
    known = presets()
    if preset not in known:
        listed = ", ".join(known)
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


def _sentence(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()
