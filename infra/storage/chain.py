"""Compare-and-swap of one small file by exclusive creation alone: no lock, on any file system with hard links.

Beside NAME, `.vitpipe-lock-NAME/` holds its generations, whole files with a number for a name. Whoever links the next
number has swapped; NAME is a copy of the newest, for people. docs/decisions/0013 says why each step stands where it
does. Knows nothing of stores or of what the file says.
"""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vitpipe.infra.errors import StorageError
from vitpipe.infra.storage import generations as files
from vitpipe.infra.storage.folders import sync_folder
from vitpipe.infra.storage.names import LOCK

KEEP = 16
"""Generations that stay: at a beat every 5 s, 80 s of them, longer than an NFS client keeps an old listing (60 s)."""
_LOOKS = 200
_AT_ONCE = 100
"""Looks before the first pause: if something changed between two looks, a writer made progress."""
_PAUSE_S = 0.05


@dataclass(frozen=True)
class ChainState:
    """What the file holds."""

    generation: int
    """1 for a file that was never swapped."""
    data: bytes
    behind: bool = False
    """Whether the readable name still shows an earlier generation: the writer died just then, or has yet to go on."""

    @property
    def version(self) -> str:
        """What a swap must name to follow this state."""
        return f"{self.generation}-{hashlib.sha256(self.data).hexdigest()}"


class Chain:
    """The generations of one file. FileNotFoundError from `read` and `swap` where it is absent."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.folder = where.with_name(LOCK + where.name)

    def read(self) -> ChainState:
        """Read the file as it stands; looking for the generations of one that was never swapped costs one call more."""
        folder = self._open()
        if folder is None:
            return ChainState(1, self._readable())
        try:
            return self._look(folder)
        finally:
            os.close(folder)

    def swap(self, data: bytes, version: str) -> str | None:
        """Replace the file if it still has `version`; return the new version, or None to the loser."""
        self._readable()
        generation, _, sha256 = version.partition("-")
        if not generation.isdecimal() or not sha256:
            return None
        number = int(generation) + 1
        with self._opened() as folder:
            try:
                won = self._advance(folder, number, data, version)
            except files.NoRoom:
                if not _freed(folder):
                    raise
                won = self._advance(folder, number, data, version)
        return ChainState(number, data).version if won else None

    def _advance(self, folder: int, number: int, data: bytes, version: str) -> bool:
        with files.draft(folder, number, data) as new:
            if not files.listed(folder).numbers:
                self._begin(folder)
            if self._look(folder).version != version or not new.link():
                return False
            os.fsync(folder)
            self._settle(new)
        return True

    def put(self, data: bytes) -> bool:
        """Replace the file whatever it holds; False where it was never swapped, and plain writing does."""
        with suppress(FileNotFoundError):
            while self.folder.is_dir():
                if self.swap(data, self.read().version):
                    return True
        return False

    def mend(self, state: ChainState) -> None:
        """Bring the readable name up to a generation whose writer did not get that far."""
        with self._opened() as folder, files.draft(folder, state.generation, state.data, (files.NAME,)) as copy:
            left = files.listed(folder).next_of(state.generation)
            if self._look(folder) == state and self._place(copy):
                for name in left:
                    files.remove(folder, name)

    def delete(self) -> None:
        """Remove the file, and the generations it had; absent is fine."""
        folder = self._open()
        if folder is None:
            with suppress(FileNotFoundError):
                os.unlink(self.where)
            with suppress(FileNotFoundError):
                os.unlink(self.folder)  # the lock file of an earlier version
            return
        try:
            found = files.listed(folder)
            for name in found.temporary:  # before the name goes: nobody who began earlier may bring it back
                files.remove(folder, name)
            with suppress(FileNotFoundError):
                os.unlink(self.where)
            for number in found.numbers:
                files.remove(folder, files.called(number))
        finally:
            os.close(folder)
        with suppress(OSError):  # somebody creates and swaps it anew
            os.rmdir(self.folder)

    def _look(self, folder: int) -> ChainState:
        for tries in range(_LOOKS):
            if tries >= _AT_ONCE:
                time.sleep(_PAUSE_S)  # a cached listing is older than the files it names
            found, readable = files.listed(folder), self._readable()
            try:
                state = _judged(folder, found, readable)
            except FileNotFoundError:
                continue
            if state is not None:
                return state
            if files.listed(folder) == found:  # nobody swapped while we looked: it was written by hand, and that counts
                return ChainState(found.numbers[-1] if found.numbers else 1, readable)
        do = "mount the file system with a shorter attribute cache (`acdirmax`), then run the same command again"
        raise StorageError(f"read {self.where}", f"the listing of {self.folder} stays older than its files", do)

    def _begin(self, folder: int) -> None:
        """Make the file's present content its first generation."""
        with files.draft(folder, 1, self._readable()) as first:
            if not files.listed(folder).numbers:  # looked at again now that others see us
                first.link()
            first.undecided = False  # it is readable already

    def _settle(self, new: files.Draft) -> None:
        """Finish a swap: show it under the readable name, and remove what nobody can need any more."""
        found = files.listed(new.folder)
        _revoke(new.folder, found, new.number)
        if self._place(new):
            for old in found.numbers:
                if old <= new.number - KEEP:
                    files.remove(new.folder, files.called(old))
        new.undecided = False

    def _place(self, new: files.Draft) -> bool:
        """Rename a copy over the readable name; False when a later swap has taken that right away."""
        try:
            os.rename(new.stem + files.NAME, self.where, src_dir_fd=new.folder)
        except FileNotFoundError:
            return False
        sync_folder(self.where.parent)
        return True

    def _readable(self) -> bytes:
        return files.content(None, str(self.where))

    def _open(self) -> int | None:
        """Open the folder of the generations, None when absent. By a handle: a folder made anew is not taken for it."""
        try:
            return os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return None

    @contextmanager
    def _opened(self) -> Iterator[int]:
        while True:
            with suppress(FileExistsError):
                os.mkdir(self.folder)
            folder = self._open()
            if folder is not None:
                break
            with suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(self.folder)  # the lock file of an earlier version; else it was removed just now
        try:
            yield folder
        finally:
            os.close(folder)


def _revoke(folder: int, found: files.GenerationFiles, number: int) -> None:
    """Remove the files of earlier writers, dead or late: what they have not linked or renamed by now, they never will.

    Only then may an old generation go: its name could be linked again.
    """
    for name in found.temporary:
        if files.target(name) < number:
            files.remove(folder, name)


def _freed(folder: int) -> bool:
    """Remove old generations from a full disk: the next needs their room, so that a lease can still be given back."""
    found = files.listed(folder)
    if len(found.numbers) < 3:
        return False
    _revoke(folder, found, found.numbers[-1])
    for old in found.numbers[:-1]:
        files.remove(folder, files.called(old))
    return True


def _judged(folder: int, found: files.GenerationFiles, readable: bytes) -> ChainState | None:
    """Return the newest generation, or None where the readable name has another content that no swap explains.

    A writer removes its `.next` once its generation is readable: while one is there, the name may be behind.
    FileNotFoundError when the newest of the listing is gone.
    """
    if not found.numbers:
        return None
    number = found.numbers[-1]
    newest = files.content(folder, files.called(number))
    if newest == readable:
        return ChainState(number, newest)
    unfinished = any(files.has(folder, name, newest) for name in found.next_of(number))
    return ChainState(number, newest, behind=True) if unfinished else None
