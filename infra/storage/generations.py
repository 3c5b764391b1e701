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
class GenerationFiles:
    """The names in the folder at one moment."""

    numbers: tuple[int, ...]
    """Generations, oldest first."""
    temporary: tuple[str, ...]
    """`{generation}-{random}.next` and `.name`, of writers at work or dead."""

    def next_of(self, number: int) -> list[str]:
        """Names of the files that writers of generation `number` have not finished with."""
        return [name for name in self.temporary if name.endswith(NEXT) and target(name) == number]


def listed(folder: int) -> GenerationFiles:
    """List the folder's generations and temporary files."""
    names = os.listdir(folder)
    numbers = sorted(int(name) for name in names if name.isdecimal())
    return GenerationFiles(tuple(numbers), tuple(sorted(name for name in names if name.endswith((NEXT, NAME)))))


class NoRoom(OSError):
    """The disk is full, or the quota, and nothing was decided."""


@dataclass
class Draft:
    """A generation that is being written: `{stem}.next` to link, `{stem}.name` to rename over the readable name."""

    folder: int
    number: int
    stem: str
    file: os.stat_result
    """State of `.next`: a generation that is this very file is ours, even if another has removed `.next` since."""
    undecided: bool = False
    """Whether it is, or may be, linked and not readable yet: `.next` then stays to say so, whatever becomes of us."""

    def link(self) -> bool:
        """Link the generation, the only step that decides; whether it is ours."""
        self.undecided = True
        try:
            link_new(self.stem + NEXT, called(self.number), self.folder)
        except FileExistsError:
            # an NFS server whose answer was lost refuses the repeated request, which it has already carried out
            self.undecided = self._stands()
        except FileNotFoundError:
            self.undecided = False  # a later writer has removed our `.next`: we lost long ago
        return self.undecided

    def _stands(self) -> bool:
        try:
            return os.path.samestat(self.file, os.stat(called(self.number), dir_fd=self.folder))
        except FileNotFoundError:
            return False


@contextmanager
def draft(folder: int, number: int, data: bytes, suffixes: tuple[str, ...] = (NEXT, NAME)) -> Iterator[Draft]:
    """Write durable copies of what is to be a generation; they last as long as the block.

    They are made before anything is looked at: an NFS client that has just changed a folder sees it as the server does.
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
    """Read a file. FileNotFoundError also where it was removed on the server since this client looked it up."""
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
    """Remove a file, whether it is still there or not."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def called(number: int) -> str:
    """The file name of a generation."""
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
