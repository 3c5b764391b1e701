"""A repository of the Hugging Face Hub at one commit as a store that is only read, for `hf://` URIs.

A commit's files never change, so what was listed is what is read. Knows nothing of what is in the files.
"""

import hashlib
from collections.abc import Iterator
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
from vitpipe.infra.storage.store import Digest, Entry

PART_BYTES = 8 << 20
THREADS = 8


def open_hub(uri: str) -> "HubStore":
    """Open a place on the Hub. A revision that is no commit is asked for now. Errors as `hub_client.commit_of`."""
    try:
        place = hub_place(uri)
    except ValueError as error:
        raise UsageError(f"open the store {uri!r}", str(error), "correct it") from None
    return HubStore(place.kind, place.repo, commit_of(place), place.path)


@dataclass(frozen=True)
class HubStore:
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
        return self.read(path), version_of(file)

    def size(self, path: str) -> int | None:
        try:
            return self._file(path).size
        except NotFound:
            return None

    def list(self, prefix: str = "") -> Iterator[Entry]:
        root = f"{self.prefix}/" if self.prefix else ""
        wanted = root + checked_prefix(prefix)
        place = (endpoint(), self.kind, self.repo, self.commit, wanted.rpartition("/")[0])
        for path, size, version in _tree(*place):
            if path.startswith(wanted):
                yield Entry(path.removeprefix(root), size, version)

    def folders(self) -> Iterator[str]:
        seen = {entry.path.split("/")[0] for entry in self.list() if "/" in entry.path}
        yield from sorted(seen)

    def download(self, path: str, local: Path, expect: Digest | None = None) -> Digest:
        """As every store's; what the Hub itself says of the file's digest is compared too."""
        file = self._file(path)
        known = Digest(file.size, file.lfs.sha256) if file.lfs else None
        if known is None and local.is_file() and _blob_id(local) == file.blob_id:
            known = digest_file(local)  # it landed before
        landing = Landing(f"{self.uri}/{path}", local, expect or known)
        landed = landing.fetch(lambda start: self._pieces(file, path, start))
        ours = landed.sha256 if file.lfs else _blob_id(local)
        if ours != version_of(file):
            found = f"{landed.bytes} bytes with the digest {ours} came, the Hub says {version_of(file)}"
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

    def _file(self, path: str) -> RepoFile:
        return _looked_at(endpoint(), self.kind, self.repo, self.commit, self._path(path))

    def _pieces(self, file: RepoFile, path: str, start: int) -> Iterator[bytes]:
        starts = range(start, file.size, PART_BYTES)
        return answers(lambda at: self.read(path, at, min(PART_BYTES, file.size - at)), starts, THREADS)


def version_of(file: RepoFile) -> str:
    """Digest of its content: the SHA-256 of a large file, the blob id that git gives a small one."""
    return file.lfs.sha256 if file.lfs else file.blob_id


@lru_cache(maxsize=8)
def _tree(endpoint: str, kind: Kind, repo: str, commit: str, folder: str) -> tuple[tuple[str, int, str], ...]:
    """Path, size and version of all files below a folder of a commit, sorted; none where there is no such folder."""
    store = HubStore(kind, repo, commit, folder)

    def listed(api: HfApi) -> list[RepoFile | RepoFolder]:
        return list(api.list_repo_tree(repo, folder or None, recursive=True, revision=commit, repo_type=kind))

    try:
        found = ask(f"list {store.uri}", listed)
    except NotFound:
        return ()
    files = (one for one in found if isinstance(one, RepoFile))
    return tuple(sorted((one.path, one.size, version_of(one)) for one in files))


@lru_cache(maxsize=4096)
def _looked_at(endpoint: str, kind: Kind, repo: str, commit: str, path: str) -> RepoFile:
    """What the Hub says of one file. NotFound where there is none."""
    asked = f"look at {HubPlace(kind, repo, commit, path).uri}"
    found = ask(asked, lambda api: api.get_paths_info(repo, [path], revision=commit, repo_type=kind))
    for one in found:
        if isinstance(one, RepoFile) and one.path == path:
            return one
    raise NotFound(asked, "no file of that name at that commit")


def _blob_id(local: Path) -> str:
    """What git calls a file of this content."""
    digest = hashlib.sha1(b"blob %d\0" % local.stat().st_size, usedforsecurity=False)
    with local.open("rb") as file:
        while chunk := file.read(PART_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
