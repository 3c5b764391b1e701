"""Which image files a person means: files as they are, folders with all that lies below them; and what is answered
of one. No torch."""

import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitpipe.infra.errors import UsageError
from vitpipe.stages.images.wordnet import with_words

SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"))
"""Files of a folder that are taken for images; whether they are, their bytes decide. A named file needs none."""


@dataclass(frozen=True, repr=False)
class Prediction:
    """One image with its classes and their probabilities, the best first; or with the reason why there are none."""

    image: Path | str
    """The file, or a word for an image that came from none."""
    classes: tuple[tuple[str, float], ...] = ()
    """Name and probability in [0, 1] of each class that was asked for."""
    reason: str | None = None

    @property
    def label(self) -> str | None:
        """Name of the best class; None where the image could not be read."""
        return self.classes[0][0] if self.classes else None

    @property
    def probability(self) -> float | None:
        """Probability of the best class, in [0, 1]; None where the image could not be read."""
        return self.classes[0][1] if self.classes else None

    def __repr__(self) -> str:
        """One line: `cat.jpg: cat 93.1 %, dog 5.0 %`."""
        named = ", ".join(f"{with_words(name)} {percent(share)}" for name, share in self.classes)
        return f"{self.image}: {named if self.reason is None else f'not readable: {self.reason}'}"


class Predictions(list[Prediction]):
    """The answers for several images in the order given, shown as one line each."""

    def __repr__(self) -> str:
        """All lines, one below the other."""
        return "\n".join(map(repr, self))


def percent(share: float) -> str:
    """Write `93.1 %`; a share above zero is never shown as zero."""
    return f"{100 * share:.1f} %" if share >= 0.0005 or share == 0 else "< 0.1 %"


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Every image, in the order of the paths; a folder's are sorted by name, level by level. None comes twice.

    UsageError naming all paths that are missing, and folders without an image.
    """
    missing = [path for path in paths if not path.exists()]
    if missing:
        listed = ", ".join(str(path) for path in missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise UsageError(f"predict {listed}", f"no such file or folder{_near(missing[0])}", "check the path")
    found: dict[Path, None] = {}
    for path in paths:
        inside = dict.fromkeys(_below(path) if path.is_dir() else [path])
        if not inside:
            do = f"name a folder with {', '.join(sorted(SUFFIXES))}, or files one by one"
            raise UsageError(f"predict the images in {path}", "no file below it has an image's suffix", do)
        found |= inside
    return list(found)


def _below(folder: Path) -> Iterator[Path]:
    """Files first, then folders, each sorted; hidden ones and links back up are left aside."""
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(where, name)


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    names = [entry.name for entry in path.parent.iterdir()]
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.parent / close[0]}?" if close else ""
