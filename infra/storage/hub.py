"""A repository of the Hugging Face Hub at one commit as a store that is only read, for `hf://` URIs.

A commit's files never change, so what was listed is what is read. Knows nothing of what is in the files.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NoReturn, Self

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.hf_api import RepoFile, RepoFolder

from vitpipe.infra.at_once import answers
from vitpipe.infra.errors import IntegrityError, NotFound, UsageError
from vitpipe.infra.storage import traffic
from vitpipe.infra.storage.hub_client import ask, commit_of, endpoint
from vitpipe.infra.storage.hub_names import HubPlace, Kind, hub_place
from vitpipe.infra.storage.hub_ranges import get_range
from vitpipe.infra.storage.landing import Landing, digest_file
from vitpipe.infra.storage.names import checked, checked_prefix
from vitpipe.infra.storage.store import Digest, Entry, OneByOne

PART_BYTES = 8 << 20
THREADS = 8
_SHA256_DIGITS = 64
"""Of the two digests by which the Hub knows files, the longer is that of large ones."""


def open_hub(uri: str) -> "HubStore":
    """Open a place on the Hub. A revision that is no commit is asked for now. Errors as `hub_client.commit_of`."""
    try:
        place = hub_place(uri)
    except ValueError as error:
        raise UsageError(f"open the store {uri!r}", str(error), "correct it") from None
    return HubStore(place.kind, place.repo, commit_of(place), place.path)


@dataclass(frozen=True)
class HubStore(OneByOne):
    """Files of one commit. See `infra.storage.store.Store` for the meaning of each method; those that write refuse."""

    kind: Kind
    repo: str
    commit: str
    prefix: str = ""

    @property
    def uri(self) -> str:
        return HubPlace(self.kind, self.repo, self.commit, self.prefix).uri

    def child(self, prefix: str) -> Self:
        return type(self)(self.kind, self.repo, self.commit, self._path(prefix))

    def read(self, path: str, start: int = 0, length: int | None = None, version: str | None = None) -> bytes:
        if length == 0:
            return b""
        asked = f"read {self.uri}/{path}"
        data = ask(asked, lambda api: get_range(self._address(path), start, length, self.commit))
        traffic.count("read_bytes", len(data))
        return data

    def read_version(self, path: str) -> tuple[bytes, str]:
        file = self._file(path)
        return self.read(path), _version(file)

    def size(self, path: str) -> int | None:
        try:
            return self._file(path).bytes
        except NotFound:
            return None

    def list(self, prefix: str = "", after: str = "") -> Iterator[Entry]:
        root = f"{self.prefix}/" if self.prefix else ""
        wanted = root + checked_prefix(prefix)
        for entry in _tree(endpoint(), self.kind, self.repo, self.commit, wanted.rpartition("/")[0]):
            if entry.path.startswith(wanted) and entry.path.removeprefix(root) > after:
                yield Entry(entry.path.removeprefix(root), entry.bytes, entry.version)

    def folders(self) -> Iterator[str]:
        seen = {entry.path.split("/")[0] for entry in self.list() if "/" in entry.path}
        yield from sorted(seen)

    def download(self, path: str, local: Path, expect: Digest | None = None) -> Digest:
        """As every store's; what the Hub itself says of the file's digest is compared too."""
        file = self._file(path)
        is_large = len(_version(file)) == _SHA256_DIGITS
        known = Digest(file.bytes, _version(file)) if is_large else None
        if not is_large and local.is_file() and _blob_id(local) == file.version:
            known = digest_file(local)  # it landed before
        landing = Landing(f"{self.uri}/{path}", local, expect or known)
        landed = landing.fetch(lambda start: self._pieces(file, path, start))
        ours = landed.sha256 if is_large else _blob_id(local)
        if ours != file.version:
            found = f"{landed.bytes} bytes with the digest {ours} came, the Hub says {file.version}"
            local.unlink()
            raise IntegrityError(f"copy {self.uri}/{path} to {local}", found, "run the same command again")
        return landed

    def clock_ahead_s(self) -> float:
        return 0.0

    def write(self, path: str, data: bytes) -> Digest:
        self._refuse()

    def create(self, path: str, data: bytes) -> str:
        self._refuse()

    def swap(self, path: str, data: bytes, version: str) -> str:
        self._refuse()

    def copy(self, source: str, target: str) -> None:
        self._refuse()

    def delete(self, path: str) -> None:
        self._refuse()

    def upload(self, local: Path, path: str, given: Digest | None = None) -> Digest:
        self._refuse()

    def sweep(self, older_than_s: float) -> int:
        return 0

    def _refuse(self) -> NoReturn:
        do = "keep runs in a folder or a bucket; `vitpipe artifacts push` brings a node's files to the Hub"
        raise UsageError(f"write to {self.uri}", "a repository on the Hub is only read as a store", do)

    def _path(self, path: str) -> str:
        return f"{self.prefix}/{checked(path)}" if self.prefix else checked(path)

    def _address(self, path: str) -> str:
        facts = {"repo_type": self.kind, "revision": self.commit, "endpoint": endpoint()}
        return hf_hub_url(self.repo, self._path(path), **facts)

    def _file(self, path: str) -> Entry:
        """What the Hub says of one file. NotFound where there is none."""
        whole = self._path(path)
        there = _tree(endpoint(), self.kind, self.repo, self.commit, whole.rpartition("/")[0], deep=False)
        found = next((entry for entry in there if entry.path == whole), None)
        if found is None:
            raise NotFound(f"look at {self.uri}/{path}", "no file of that name at that commit")
        return found

    def _pieces(self, file: Entry, path: str, start: int) -> Iterator[bytes]:
        starts = range(start, file.bytes, PART_BYTES)
        return answers(lambda at: self.read(path, at, min(PART_BYTES, file.bytes - at)), starts, THREADS)


def _version(file: Entry) -> str:
    return file.version or ""


@lru_cache(maxsize=32)
def _tree(endpoint: str, kind: Kind, repo: str, commit: str, folder: str, deep: bool = True) -> tuple[Entry, ...]:
    """Files of a folder of a commit, by their whole paths, sorted; with `deep` those of the folders below it too.

    Their version is a digest of the content: the SHA-256 of a large file, the name that git has for a small one. None
    where there is no such folder.
    """
    store = HubStore(kind, repo, commit, folder)

    def listed(api: HfApi) -> list[RepoFile | RepoFolder]:
        return list(api.list_repo_tree(repo, folder or None, recursive=deep, revision=commit, repo_type=kind))

    try:
        found = ask(f"list {store.uri}", listed)
    except NotFound:
        return ()
    files = (one for one in found if isinstance(one, RepoFile))
    entries = (Entry(one.path, one.size, one.lfs.sha256 if one.lfs else one.blob_id) for one in files)
    return tuple(sorted(entries, key=lambda entry: entry.path))


def blob_id(size: int, pieces: Iterable[bytes]) -> str:
    """Return what git calls a file of this content."""
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _blob_id(local: Path) -> str:
    with local.open("rb") as file:
        return blob_id(local.stat().st_size, iter(lambda: file.read(PART_BYTES), b""))
