"""A folder of numbered generations of one file, by a handle: what is listed, written, linked and removed in it.

Knows single steps; `chain` knows their order, and what they mean together.
"""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from vitpipe.infra.storage.folders import link_new

NEXT, NAME = ".next", ".name"


@dataclass(frozen=True)
class Listed:
    """The names in the folder at one moment."""

    numbers: tuple[int, ...]
    """Generations, oldest first."""
    temporary: tuple[str, ...]
    """`{generation}-{random}.next` and `.name`: of writers at work, or dead."""

    def next_of(self, number: int) -> list[str]:
        return [name for name in self.temporary if name.endswith(NEXT) and target(name) == number]


def listed(folder: int) -> Listed:
    names = os.listdir(folder)
    numbers = sorted(int(name) for name in names if name.isdecimal())
    return Listed(tuple(numbers), tuple(sorted(name for name in names if name.endswith((NEXT, NAME)))))


class NoRoom(OSError):
    """The disk is full, or the quota, and nothing was decided."""


@dataclass
class Draft:
    """A generation that is being written: `{stem}.next` to link, `{stem}.name` to rename over the readable name."""

    folder: int
    number: int
    stem: str
    file: os.stat_result
    """Of `.next`: a generation that is this very file is ours, though another may have taken the name away since."""
    undecided: bool = False
    """Linked, or perhaps, and not readable yet: `.next` stays and says so, whatever becomes of us."""

    def link(self) -> bool:
        """Whether the generation is ours; the only step that decides."""
        self.undecided = True
        try:
            link_new(self.stem + NEXT, called(self.number), self.folder)
        except FileExistsError:
            # an NFS server that is asked again after a lost answer refuses what it has done itself
            self.undecided = self._stands()
        except FileNotFoundError:
            self.undecided = False  # a later writer has taken our `.next` away: we have lost long ago
        return self.undecided

    def _stands(self) -> bool:
        try:
            return os.path.samestat(self.file, os.stat(called(self.number), dir_fd=self.folder))
        except FileNotFoundError:
            return False


@contextmanager
def draft(folder: int, number: int, data: bytes, suffixes: tuple[str, ...] = (NEXT, NAME)) -> Iterator[Draft]:
    """Durable copies of what is to be a generation, for as long as the block lasts.

    They are made before anything is looked at: a client that has changed a folder sees it as the server has it.
    """
    stem, new = f"{called(number)}-{secrets.token_hex(8)}", None
    try:
        try:
            files = [_write(folder, stem + suffix, data) for suffix in suffixes]
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoRoom(*error.args) from error
            raise
        new = Draft(folder, number, stem, files[0])
        yield new
    finally:
        remove(folder, stem + NAME)
        if new is None or not new.undecided:
            remove(folder, stem + NEXT)


def content(folder: int | None, name: str) -> bytes:
    """The bytes of a file. FileNotFoundError also where it was removed on the server since this client looked it up."""
    try:
        with open(name, "rb", opener=lambda path, flags: os.open(path, flags, dir_fd=folder)) as file:
            return file.read()
    except OSError as error:
        if error.errno == errno.ESTALE:
            raise FileNotFoundError(error.errno, error.strerror, name) from error
        raise


def has(folder: int, name: str, data: bytes) -> bool:
    """Whether a file of that name is there, with that content."""
    try:
        return content(folder, name) == data
    except FileNotFoundError:
        return False


def remove(folder: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def called(number: int) -> str:
    return f"{number:012d}"


def target(temporary: str) -> int:
    """The generation that a temporary file was made for."""
    return int(temporary.partition("-")[0])


def _write(folder: int, name: str, data: bytes) -> os.stat_result:
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
        return os.fstat(handle)
    finally:
        os.close(handle)
