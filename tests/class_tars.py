"""Folders of classes, packed as others ship them: a tar a class, all in one, gzipped, in a bucket, as a tree."""

import gzip
import io
import tarfile
from pathlib import Path

from photos import encoded, picture, write
from tars import tar


def class_folder(root: Path, classes: int = 3, each: int = 4, first: int = 0) -> Path:
    """`root/n0000000K/n0000000K_J.JPEG`, every picture another one."""
    for number in range(classes):
        for place in range(each):
            name = f"n{number:08d}/n{number:08d}_{place * 7}.JPEG"
            write(root / name, encoded(picture(first + number * each + place), "JPEG"))
    return root


def class_tars(root: Path, folder: Path) -> Path:
    """Each class of the folder `root` as `folder/CLASS.tar`, its images at the top."""
    for one in sorted(root.iterdir()):
        tar(folder / f"{one.name}.tar", [(path.name, path.read_bytes()) for path in sorted(one.iterdir())])
    return folder


def outer(folder: Path, path: Path, around: str = "winter21_whole") -> Path:
    """All files below a folder as one tar, with a folder around them as `tar` leaves it; gzipped by its name."""
    members = [(f"{around}/{one.relative_to(folder)}", one) for one in sorted(folder.rglob("*")) if one.is_file()]
    packed = tar(path.with_suffix(".made"), [(name, one.read_bytes()) for name, one in members])
    data = packed.read_bytes()
    packed.unlink()
    return write(path, gzip.compress(data, 1) if path.suffix in (".gz", ".tgz") else data)


def tar_bytes(members: list[tuple[str, bytes]]) -> bytes:
    """A plain tar of these members."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as opened:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            opened.addfile(info, io.BytesIO(data))
    return file.getvalue()
