"""Files into a repository of the Hugging Face Hub, overwriting nothing of others. Knows no run.

What was written is listed there in `vitpipe.json`, so that a later push tells its own files from those of others.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import HfApi

from vitpipe.infra.errors import NotFound, UsageError
from vitpipe.infra.storage.hub import HubStore
from vitpipe.infra.storage.hub_client import ask, commit_of, endpoint
from vitpipe.infra.storage.hub_names import HubPlace
from vitpipe.infra.storage.hub_upload import Outgoing, commit, outgoing

WROTE = "vitpipe.json"
_OF_THE_HUB = (".gitattributes",)
_SHOWN = 5

Listed = Mapping[str, Sequence[str]]
"""The digests by which a file may be known on the Hub: its SHA-256, and of a small one git's name."""


@dataclass(frozen=True)
class Pushed:
    """What a push did."""

    url: str
    commit: str
    written: tuple[str, ...]
    removed: tuple[str, ...]
    """Files of an earlier push that are no longer among those pushed."""
    left: tuple[str, ...]
    """Files that somebody edited there, and that are here as they were pushed: they stay as they are there."""


@dataclass(frozen=True)
class _Changes:
    write: list[Outgoing]
    remove: list[str]
    left: list[str]
    conflicts: list[str]


def push(
    place: HubPlace,
    files: Sequence[Outgoing],
    about: Mapping[str, Any],
    *,
    private: bool = False,
    replace: bool = False,
    finished: Callable[[str], None] = lambda _: None,
) -> Pushed:
    """Bring files to a branch by one commit, none where all are there. A missing repository or branch is made.

    `about` is what `vitpipe.json` says of them besides; `finished` is called with the path of each file that is there.
    Errors: UsageError where something that vitpipe did not write would be overwritten, unless `replace`;
    IntegrityError for a file that is not what its digest says; StorageError for the token and the network.
    """
    if place.is_fixed or place.path:
        do = "name the repository, and a branch behind an `@` where it is not `main`"
        raise UsageError(f"push to {place.uri}", "files are pushed to a branch of a repository", do)
    url = f"{endpoint()}/{'datasets/' if place.kind == 'dataset' else ''}{place.repo}"
    head = _prepared(place, private)
    store = HubStore(place.kind, place.repo, head)
    listed_there = store.list() if head else ()
    there = {entry.path: str(entry.version) for entry in listed_there if entry.path not in _OF_THE_HUB}
    changes = _changes(files, there, _wrote(store) if WROTE in there else {})
    if changes.conflicts and not replace:
        raise _refused(url, changes.conflicts, WROTE in there)
    listed = {file.path: list(file.versions) for file in files}
    note = outgoing(WROTE, (json.dumps({"schema": 1, **about, "files": listed}, indent=1) + "\n").encode())
    overwritten = [file for file in files if file.path in changes.conflicts]
    writes = [*changes.write, *overwritten, *([] if there.get(WROTE) in note.versions else [note])]
    written = {file.path for file in writes}
    for file in files:
        if file.path not in written:
            finished(file.path)
    if not writes and not changes.remove:
        return Pushed(url, head, (), (), tuple(changes.left))
    done = commit(place, head, writes, changes.remove, f"{about.get('node', 'files')} by vitpipe", finished)
    return Pushed(url, done.oid, tuple(sorted(written)), tuple(changes.remove), tuple(changes.left))


def _prepared(place: HubPlace, private: bool) -> str:
    """The branch's commit, nothing of an empty one; the repository and the branch are made where they are missing."""
    asked, main = f"push to {place.root}", HubPlace(place.kind, place.repo)

    def make_repository(api: HfApi) -> object:
        return api.create_repo(place.repo, repo_type=place.kind, private=private or None, exist_ok=True)

    def is_private(api: HfApi) -> bool | None:
        return api.repo_info(place.repo, repo_type=place.kind, expand="private").private

    def make_branch(api: HfApi) -> None:
        api.create_branch(place.repo, repo_type=place.kind, branch=place.revision, exist_ok=True)

    try:
        commit_of(main)
    except UsageError:
        ask(asked, make_repository)
    else:
        if private and ask(asked, is_private) is False:
            do = "make it private in its settings on the Hub, push to another, or leave --private out"
            raise UsageError(asked, "it is there already, and everybody may read it", do)
    if place.revision != main.revision and not _head(place):
        ask(asked, make_branch)
    return _head(place)


def _head(place: HubPlace) -> str:
    try:
        return commit_of(place)
    except UsageError:
        return ""


def _wrote(store: HubStore) -> Listed:
    """What an earlier push listed; nothing where that cannot be read."""
    try:
        listed = json.loads(store.read(WROTE))["files"]
        return {str(path): [str(one) for one in versions] for path, versions in listed.items()}
    except (NotFound, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _changes(files: Sequence[Outgoing], there: Mapping[str, str], wrote: Listed) -> _Changes:
    """What has to be done, where `there` has the digests that files have now and `wrote` those that a push gave."""
    found = _Changes([], [], [], [])
    for file in files:
        now, before = there.get(file.path), wrote.get(file.path, ())
        if now is None or (now in before and now not in file.versions):
            found.write.append(file)
        elif now not in file.versions:
            (found.left if {*before} & {*file.versions} else found.conflicts).append(file.path)
    ours = {file.path for file in files}
    found.remove.extend(path for path in wrote if path not in ours and there.get(path) in wrote[path])
    if not wrote:
        found.conflicts.extend(path for path in there if path not in ours)
    return found


def _refused(url: str, paths: Sequence[str], pushed_before: bool) -> UsageError:
    shown = ", ".join(sorted(paths)[:_SHOWN]) + (", ..." if len(paths) > _SHOWN else "")
    found = f"it holds {len(paths)} files that vitpipe did not write: {shown}"
    if pushed_before:
        found = f"{len(paths)} files were changed there since they were pushed: {shown}"
    do = "push to another repository, or with --replace: what was there stays in the repository's history"
    return UsageError(f"push to {url}", found, do)
