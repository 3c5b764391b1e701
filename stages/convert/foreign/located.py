"""Where foreign weights lie and of which files they are: a file or a folder, local or on S3. No torch.

Pickles are refused by name and by their first bytes, before anything opens them.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vitpipe.infra.errors import IntegrityError, NotFound, StorageError, UsageError
from vitpipe.infra.storage.landing import digest_file
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.store import Digest
from vitpipe.stages.convert.config import PICKLES, WITHOUT_PICKLES
from vitpipe.stages.convert.containers.safetensors_file import read_index
from vitpipe.stages.convert.formats.common import SAFETENSORS, readings
from vitpipe.stages.sighting import etag_mark, time_mark
from vitpipe.stages.vit.file_kind import file_kind

INDEX = "model.safetensors.index.json"
COMPANIONS = tuple(dict.fromkeys(name for reading in reversed(readings().values()) for name in reading.companions))
"""What may stand beside the tensors and say what they are, in the order of `source.json`, over which a digest goes."""
TENSORS = (".safetensors", ".npz")
"""Endings of the files that hold them."""
_NAMED = 4


@dataclass(frozen=True)
class Located:
    """The files of one set of weights. `folder` is an absolute local path or an `s3://` URI."""

    folder: str
    tensors: tuple[str, ...]
    """Names below the folder, one or the shards in order."""
    index: str | None
    companions: tuple[str, ...]
    beside: tuple[str, ...] = ()
    """Other files of tensors in the folder, which are not taken."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of the choice among its files."""
        if not self.beside:
            return ()
        return (f"{', '.join(self.beside[:_NAMED])} beside it was not taken: config.source.path may name a file",)

    @property
    def names(self) -> tuple[str, ...]:
        """All files, tensors last."""
        return (*self.companions, *((self.index,) if self.index else ()), *self.tensors)

    @property
    def is_local(self) -> bool:
        """Whether they lie on this machine's disk."""
        return is_local(self.folder)

    def bytes_elsewhere(self) -> int:
        """Bytes that have to be copied to this machine; none of what is local."""
        if self.is_local:
            return 0
        store = open_store(self.folder)
        return sum(store.size(name) or 0 for name in self.names)

    def fetch(self, name: str, scratch: Path, expect: Digest | None = None) -> tuple[Path, Digest]:
        """The file on this machine and its digest: a local one in place, another copied to `scratch`.

        Errors: IntegrityError unless it is what `expect` says; UsageError when it is gone.
        """
        if not self.is_local:
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                return scratch / name, open_store(self.folder).download(name, scratch / name, expect=expect)
            except NotFound as error:
                asked, found = f"read {self.folder}/{name}", "there is no such object"
                raise UsageError(asked, found, "correct config.source.path") from error
        path = Path(self.folder, name)
        digest = _digest(path)
        if expect is not None and digest != expect:
            found = f"it has SHA-256 {digest.sha256}, it had {expect.sha256} when it was looked at"
            raise IntegrityError(f"read {path}", found, "leave the file alone while it is converted, then run again")
        return path, digest


def locate(path: str, scratch: Path) -> Located:
    """Find the files that `path` means; `scratch` takes an index from S3, which is read to know them.

    UsageError (2) for what is missing, empty, a pickle, or not one set of weights.
    """
    path = os.path.abspath(path.removeprefix("file://")) if is_local(path) else path.rstrip("/")
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in PICKLES:
        raise _pickle(path, path)
    if suffix in TENSORS:
        folder, _, name = path.rpartition("/")
        return _one(path, folder or "/", name)
    names = _names(path)
    if INDEX in names:
        index, _ = Located(path, (), INDEX, ()).fetch(INDEX, scratch)
        shards = read_index(index)
        if missing := sorted(set(shards) - names):
            found = f"{len(missing)} of {len(shards)} shards are missing: {', '.join(missing[:3])}"
            raise UsageError(f"convert the weights {path}", found, "fetch the whole folder")
        return Located(path, shards, INDEX, _companions(names), _tensors(names - set(shards)))
    tensors = _tensors(names)
    chosen = SAFETENSORS if SAFETENSORS in tensors else tensors[0] if len(tensors) == 1 else None
    if chosen is None:
        raise _not_one(path, names, tensors)
    return Located(path, (chosen,), None, _companions(names), _tensors(names - {chosen}))


def is_local(path: str) -> bool:
    """Whether a path means this machine's disk."""
    return "://" not in path or path.startswith("file://")


def states(folder: str, names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Size and mark (`stages.sighting`) of those of the names that are files there. StorageError, OSError."""
    if not is_local(folder):
        store = open_store(folder)
        entries = (entry for name in names for entry in store.list(name) if entry.path == name)
        return {entry.path: (entry.bytes, etag_mark(entry.version)) for entry in entries}
    paths = {name: Path(folder, name) for name in names}
    there = {name: path.stat() for name, path in paths.items() if path.is_file()}
    return {name: (state.st_size, time_mark(state)) for name, state in there.items()}


def refuse_unopenable(path: Path) -> None:
    """UsageError for an empty file, and one that begins as pickles do: torch's zip with a pickle in it, or a bare one.

    An npz is a zip too; its members are looked at when it is opened.
    """
    if not path.stat().st_size:
        raise _empty(path)
    kind = file_kind(path)
    if kind == "pickle" or (kind == "zip" and not is_npz(path.name)):
        raise _pickle(str(path), str(path))


def is_npz(name: str) -> bool:
    """Whether a file of tensors is NumPy's, by its name as `locate` takes it."""
    return name.lower().endswith(".npz")


def _one(asked: str, folder: str, name: str) -> Located:
    if is_local(folder):
        names = frozenset(entry for entry in (name, *COMPANIONS) if Path(folder, entry).is_file())
    else:  # asked for one by one: a bucket may hold millions
        store = open_store(folder)
        names = frozenset(entry for entry in (name, *COMPANIONS) if store.size(entry) is not None)
    if name not in names:
        raise UsageError(f"convert the weights {asked}", "no such file", "correct config.source.path")
    return Located(folder, (name,), None, _companions(names))


def _tensors(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(name for name in names if name.endswith(TENSORS)))


def _companions(names: frozenset[str]) -> tuple[str, ...]:
    return tuple(name for name in COMPANIONS if name in names)


def _names(folder: str) -> frozenset[str]:
    """Files directly in a folder; empty ones too."""
    if not is_local(folder):
        return frozenset(entry.path for entry in open_store(folder).list() if "/" not in entry.path)
    if not os.path.isdir(folder):
        raise UsageError(f"convert the weights in {folder}", "no such folder", "correct config.source.path")
    return frozenset(entry.name for entry in os.scandir(folder) if entry.is_file())


def _not_one(path: str, names: Iterable[str], tensors: tuple[str, ...]) -> UsageError:
    if len(tensors) > 1:
        found = f"{len(tensors)} files of tensors stand there: {', '.join(tensors[:_NAMED])}"
        return UsageError(f"convert the weights {path}", found, "name one of them in config.source.path")
    pickles = sorted(name for name in names if PurePosixPath(name).suffix.lower() in PICKLES)
    if pickles:
        return _pickle(path, ", ".join(pickles[:_NAMED]))
    found = ", ".join(sorted(names)[:6]) or "nothing"
    do = "name a .safetensors or .npz file, or a folder that holds one"
    return UsageError(f"convert the weights {path}", f"no tensors there, but {found}", do)


def _pickle(path: str, found: str) -> UsageError:
    why = f"it is {found}: a pickle can run code, it is not opened"
    return UsageError(f"convert the weights {path}", why, WITHOUT_PICKLES)


def _empty(path: Path) -> UsageError:
    return UsageError(f"read {path}", "the file is empty", "fetch it again")


def _digest(path: Path) -> Digest:
    try:
        digest = digest_file(path)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UsageError(f"read {path}", str(error.strerror), "correct config.source.path") from error
    except OSError as error:
        raise StorageError(f"read {path}", str(error), "check the disk, then run again") from error
    if not digest.bytes:
        raise _empty(path)
    return digest
