"""Bytes to a repository of the Hugging Face Hub: each file is uploaded, then one commit makes all of them true.

By the protocol of git's large files alone, which every server of this interface speaks. Knows no other file there.
"""

import hashlib
import io
import logging
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.utils import logging as hub_logging

from vitpipe.infra.errors import IntegrityError
from vitpipe.infra.storage import traffic
from vitpipe.infra.storage.hub import blob_id
from vitpipe.infra.storage.hub_client import ask
from vitpipe.infra.storage.hub_errors import ERRORS, Unbelievable
from vitpipe.infra.storage.hub_names import HubPlace
from vitpipe.infra.storage.store import Digest

SMALL_BYTES = 10_000_000
"""Above this size every file is a large one to the Hub; up to it, a file may be known by git's name for it."""


@dataclass(frozen=True)
class Outgoing:
    """One file to push."""

    path: str
    digest: Digest
    versions: tuple[str, ...]
    """The digests by which it may be known there: its SHA-256 and, of a small one, git's."""
    content: Callable[[Path], bytes | Path]
    """Its bytes, or where they lie; it may bring them to the folder it is given. Called when the file's turn comes."""


def outgoing(path: str, data: bytes, content: Callable[[Path], bytes | Path] | None = None) -> Outgoing:
    """Make a small file of its bytes; with `content` they are not kept, but asked for again."""
    digest = Digest(len(data), hashlib.sha256(data).hexdigest())
    return Outgoing(path, digest, (digest.sha256, blob_id(len(data), [data])), content or (lambda _: data))


def commit(
    place: HubPlace,
    head: str,
    writes: Sequence[Outgoing],
    remove: Sequence[str],
    message: str,
    finished: Callable[[str], None],
) -> CommitInfo:
    """Upload what is large, one file after the other, then make all of it true at once."""
    loudness = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.ERROR)  # files are given open, which it remarks upon
    try:
        with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="vitpipe-push-") as scratch:
            additions: list[CommitOperationAdd] = []
            for file in writes:
                content = file.content(Path(scratch))
                given = _Counted(content)
                stack.callback(given.close)
                upload = partial(_uploaded, place=place, file=file, given=given)
                additions.append(ask(f"upload {file.path} to {place.root}", upload, patient=True))
                if additions[-1].path_or_fileobj is not given:  # it is there; others travel with the commit
                    given.close()
                finished(file.path)
                if isinstance(content, Path) and content.is_relative_to(scratch):
                    content.unlink()
            removals = [CommitOperationDelete(path) for path in remove]

            def make(api: HfApi) -> CommitInfo:
                made: CommitInfo = api.create_commit(
                    place.repo,
                    [*additions, *removals],
                    commit_message=message,
                    parent_commit=head or None,
                    repo_type=place.kind,
                    revision=place.revision,
                )
                return made

            return ask(f"push to {place.root}", make, patient=True)
    finally:
        hub_logging.set_verbosity(loudness)


def _uploaded(api: HfApi, place: HubPlace, file: Outgoing, given: "_Counted") -> CommitOperationAdd:
    """What a commit needs of a file, its bytes on the Hub already where they are large. IntegrityError for others."""
    given.is_counted = False
    given.seek(0)
    addition = CommitOperationAdd(file.path, given)
    if addition.upload_info.sha256.hex() != file.digest.sha256:
        found = f"it has SHA-256 {addition.upload_info.sha256.hex()}, the record says {file.digest.sha256}"
        raise IntegrityError(f"push {file.path}", found, "`vitpipe artifacts verify` tells what else is damaged")
    given.is_counted = True
    try:
        api.preupload_lfs_files(place.repo, [addition], repo_type=place.kind, revision=place.revision, free_memory=True)
    except RuntimeError as error:  # the library wraps what ended an upload
        if isinstance(error.__cause__, ERRORS):
            raise error.__cause__ from None
        raise
    except ValueError as error:
        raise Unbelievable(str(error)) from error
    return addition


class _Counted(io.BufferedReader):
    """An open file that tells how much of it was read to be sent.

    What is given open is sent by git's protocol; given as bytes or a path, the library would take one of its own.
    """

    def __init__(self, content: bytes | Path) -> None:
        super().__init__(io.BytesIO(content) if isinstance(content, bytes) else io.FileIO(content))
        self.is_counted = False

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if self.is_counted:
            traffic.count("written_bytes", len(data))
        return data
