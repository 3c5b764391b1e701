"""Packed tars, read once from end to end and left in the store as plain ones, which can be read at any place. No torch.

Nothing is fetched twice and nothing held whole: an interrupted file begins anew, a finished one is taken over.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from vitpipe.infra.at_once import answers
from vitpipe.infra.errors import NotFound, UsageError
from vitpipe.infra.storage.store import Digest
from vitpipe.infra.work import stop_if_asked
from vitpipe.stages.contract import Out, StageContext, TaskContext
from vitpipe.stages.ingest.sources.file_stream import ForwardWindow, PackedFile
from vitpipe.stages.ingest.sources.patterns import SourceFile
from vitpipe.stages.ingest.sources.tar_contents import (
    PACKED,
    SUFFIXES,
    Holds,
    broken,
    clean_name,
    holds,
    is_hidden,
    is_image,
    without_suffix,
)
from vitpipe.stages.ingest.sources.tar_walk import Damage, Member, walk
from vitpipe.stages.tasks import gather

FOLDER = "unpacked"
"""Below the attempt; no part of the artifact, so that `gc` may take it once the shards are there."""
PIECE_BYTES = 268_435_456
COPY_BYTES = 8_388_608
UPLOADS = 3
"""Pieces on the local disk at a time."""


@dataclass(frozen=True)
class Unpacked:
    """What became of one file."""

    name: str
    size: int
    version: str | None
    sha256: str
    """Of the file as it was."""
    holds: Holds
    pieces: tuple[tuple[str, str, int], ...]
    """Of each plain tar the name that it stands for, its path below the attempt, and its bytes."""
    links: tuple[str, ...] = ()
    """Images that are links, or sparse, in the words of a quarantine: their bytes are not there."""
    attempt: str = ""

    def parts(self, out: Out) -> Iterator[SourceFile]:
        """The plain tars as files of a source, to be numbered."""
        folder = f"{out.node.uri}/{self.attempt}"
        return (SourceFile(0, name, folder, path, size) for name, path, size in self.pieces)


@dataclass(frozen=True)
class UnpackTask:
    """One file to unpack."""

    context: TaskContext
    file: SourceFile
    alone: bool


def unpacked_files(files: Sequence[SourceFile], ctx: StageContext) -> list[Unpacked]:
    """Each of the files as plain tars in the store; what an earlier attempt finished is taken over."""
    found = {file.number: done for file in files if (done := _finished(file, ctx.out))}
    tasks = [UnpackTask(ctx.task, file, len(files) == 1) for file in files if file.number not in found]
    size = sum(task.file.size for task in tasks)
    if tasks:
        told = f"{len(tasks)} packed files of {size / 1e9:.1f} GB are unpacked into the store"
        ctx.events.emit("note", f"{told}, to be read at any place; `vitpipe gc` frees that once the shards are there")
    if found:
        ctx.events.emit("resumed", f"{len(found)} of {len(files)} packed files stand unpacked from an earlier attempt")
    label = "unpack-{0.file.number}".format
    for task, done in gather(ctx.cluster.fan(unpack, tasks, resources=ctx.resources, label=label)):
        found[task.file.number] = done
    return [found[file.number] for file in files]


def unpack(task: UnpackTask) -> Unpacked:
    """Unpack one file. IntegrityError for one that is not whole, UsageError for what is not to be read so."""
    context, file = task.context, task.file
    packed = PackedFile(file)
    context.scratch.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=context.scratch) as made:
        pieces = _Pieces(task, packed, Path(made))
        sent = list(answers(pieces.send, pieces, at_once=UPLOADS))
    whole = (file.name, file.size, file.version, packed.sha256, pieces.holds or "images")
    done = Unpacked(*whole, tuple(sent), tuple(pieces.links), context.out.attempt)
    context.out.put(_record(file), json.dumps(asdict(done)).encode())
    return done


def _record(file: SourceFile) -> str:
    return f"{FOLDER}/{file.number:03d}.json"


def _finished(file: SourceFile, out: Out) -> Unpacked | None:
    """What this or an earlier attempt left of the same file, if all of it is there."""
    for attempt in (out.attempt, *out.earlier):
        try:
            fields = json.loads(out.node.read(f"{attempt}/{_record(file)}"))
            pieces = tuple((name, path, size) for name, path, size in fields.pop("pieces"))
            done = Unpacked(**{**fields, "pieces": pieces, "links": tuple(fields["links"])})
        except (NotFound, ValueError, TypeError, KeyError):
            continue
        there = {entry.path: entry.bytes for entry in out.node.list(f"{attempt}/{FOLDER}/")}
        same = (done.name, done.size, done.version) == (file.name, file.size, file.version)
        if same and all(there.get(f"{attempt}/{path}") == size for _, path, size in pieces):
            return done
    return None


@dataclass(frozen=True)
class _Piece:
    """A plain tar on the local disk."""

    name: str
    local: Path
    digest: Digest


class _Pieces:
    """The plain tars of one packed file, one after another; each is given away before the next but few is begun."""

    def __init__(self, task: UnpackTask, packed: PackedFile, folder: Path) -> None:
        self._task, self._packed, self._folder = task, packed, folder
        self._window = ForwardWindow(packed.plain())
        self.holds: Holds | None = None
        self.links: list[str] = []
        self._made = 0

    def __iter__(self) -> Iterator[_Piece]:
        members = self._members()
        for first in members:  # only then it is known what it holds
            both = chain((first,), members)
            yield from (self._tars(both) if self.holds == "tars" else self._images(both))

    def send(self, piece: _Piece) -> tuple[str, str, int]:
        """Copy a piece into the store."""
        path = f"{FOLDER}/{piece.local.name}"
        self._task.context.out.upload(piece.local, path, given=piece.digest)
        piece.local.unlink(missing_ok=True)
        return piece.name, path, piece.digest.bytes

    def _members(self) -> Iterator[tuple[str, Member]]:
        """Images or tars, whichever come first; what is neither stays behind."""
        file = self._task.file
        for one in walk(self._window):
            if isinstance(one, Damage):
                raise broken(file, one.text)
            name = clean_name(one.name)
            is_tar = name.lower().endswith(SUFFIXES)
            if is_hidden(name) or not (is_tar or is_image(name)):
                continue
            self.holds = self.holds or holds(file.name, [one], self._task.alone)
            if is_tar != (self.holds == "tars"):
                found = f"it holds both images and the tar {name}" if is_tar else f"it holds tars, and the image {name}"
                raise UsageError(f"read {file.uri}", found, "unpack it into a folder, and name that in `urls`")
            if is_tar and name.lower().endswith(PACKED):
                found = f"it holds the packed tar {name}"
                raise UsageError(f"read {file.uri}", found, "unpack it into a folder, and name that in `urls`")
            if one.fault:
                self.links.append(f"{name}: {one.fault}")
                continue
            yield name, one

    def _tars(self, members: Iterator[tuple[str, Member]]) -> Iterator[_Piece]:
        """Each inner tar as it is."""
        for name, one in members:
            with closing(_Written(self._next())) as piece:
                self._copy(one, piece)
            yield piece.done(name)

    def _images(self, members: Iterator[tuple[str, Member]]) -> Iterator[_Piece]:
        """Images in their order, in tars of `PIECE_BYTES`; of one class in one."""
        name = f"{without_suffix(self._task.file.name)}.tar"
        open_piece: _Written | None = None
        try:
            for member, one in members:
                if open_piece is not None and self.holds == "tree" and open_piece.size >= PIECE_BYTES:
                    yield open_piece.ended(name)
                    open_piece = None
                piece = open_piece = open_piece or _Written(self._next())
                info = tarfile.TarInfo(member)
                info.size = one.size
                piece.add(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
                self._copy(one, piece)
                piece.add(bytes(-one.size % tarfile.BLOCKSIZE))
            if open_piece is not None:
                yield open_piece.ended(name)
        finally:
            if open_piece is not None:
                open_piece.close()

    def _copy(self, one: Member, piece: "_Written") -> None:
        for at in range(0, one.size, COPY_BYTES):
            wanted = min(COPY_BYTES, one.size - at)
            data = self._window.read(one.offset + at, wanted)
            if len(data) < wanted:
                raise broken(self._task.file, f"it ends inside {one.name!r}, {at + len(data)} of {one.size} bytes in")
            piece.add(data)

    def _next(self) -> Path:
        """Where the next piece is made; a good moment to end, and to say how far we are."""
        context, file = self._task.context, self._task.file
        stop_if_asked(context.fence, f"unpack {file.uri}")
        if self._task.alone:
            context.progress.update(self._packed.taken, file.size, "bytes", note=f"unpacking {file.name}")
        self._made += 1
        return self._folder / f"{file.number:03d}-{self._made - 1:06d}.tar"


class _Written:
    """A file that is being written, and its digest."""

    def __init__(self, local: Path) -> None:
        self.local, self.size = local, 0
        self._sha256, self._file = hashlib.sha256(), local.open("xb")

    def close(self) -> None:
        self._file.close()

    def add(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self.size += len(data)

    def ended(self, name: str) -> _Piece:
        """As a tar, with its end."""
        self.add(bytes(2 * tarfile.BLOCKSIZE))
        self._file.close()
        return self.done(name)

    def done(self, name: str) -> _Piece:
        return _Piece(name, self.local, Digest(self.size, self._sha256.hexdigest()))
