"""Small tars of samples for tests, written with the standard library, and each way of damaging them."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from photos import encoded, picture


def tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """A plain tar of these members, in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def samples(first: int, count: int, classes: int = 3) -> list[tuple[str, bytes]]:
    """`count` samples of a JPEG and its class, keys from `first` on."""
    return [
        member
        for number in range(first, first + count)
        for member in (
            (f"{number:04d}.jpg", encoded(picture(number), "JPEG")),
            (f"{number:04d}.cls", str(number % classes).encode()),
        )
    ]


def tars(folder: Path, shards: int = 3, each: int = 6) -> Path:
    """`folder/in-00000k.tar`, `each` samples in each."""
    for shard in range(shards):
        tar(folder / f"in-{shard:06d}.tar", samples(shard * each, each))
    return folder
