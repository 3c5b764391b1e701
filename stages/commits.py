"""Revisions of the Hugging Face Hub and the commits they meant: resolved once, written down, and compared later.

A revision may be moved, a commit never changes. Knows which fields of a config are places, and no stage. No torch.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from vitpipe.infra.errors import NotFound
from vitpipe.infra.storage.hub_names import hub_place, is_hub, without_revisions
from vitpipe.infra.storage.store import Store
from vitpipe.stages.settings import Place, Settings
from vitpipe.stages.sighting import HINTS, Sighted

COMMITS = f"{HINTS}commits.json"
"""Its name in an attempt: what `at_commits` gave when the attempt began."""

C = TypeVar("C", bound=Settings)
Commits = Mapping[str, str]
"""Commit by repository and revision: `{"hf://datasets/owner/name@main": "4f1c..."}`."""


def at_commits(config: C) -> tuple[C, dict[str, str]]:
    """Put the commit in the place of each revision that a place of the config names; and give those commits.

    Errors: UsageError for a repository or revision that is not there; StorageError where the Hub does not answer.
    """
    commits = dict[str, str]()
    return _at_commits(config, commits), commits


def told(commits: Commits) -> tuple[str, ...]:
    """What a person should know of them: which commit each branch and tag is now."""
    return tuple(f"{place} is commit {commit}" for place, commit in commits.items() if not place.endswith(commit))


def write_commits(commits: Commits) -> bytes:
    """Write the content of the file `COMMITS`."""
    return (json.dumps(commits, sort_keys=True, indent=1) + "\n").encode()


def read_commits(node: Store, attempt: str) -> dict[str, str]:
    """Read what an attempt took from the Hub; nothing where it took nothing there."""
    try:
        return {str(place): str(commit) for place, commit in json.loads(node.read(f"{attempt}/{COMMITS}")).items()}
    except (NotFound, ValueError, AttributeError):
        return {}


def compared(was: Commits, now: Commits) -> Sighted | None:
    """What became of the revisions since; None where all mean what they meant, or another repository is asked for."""
    moved, other = list[str](), list[str]()
    for place, commit in now.items():
        repository = without_revisions(place)
        taken = {each for one, each in was.items() if without_revisions(one) == repository}
        if place in was and was[place] != commit:
            moved.append(f"{place} was commit {was[place]} and is {commit} now")
        elif place not in was and taken and commit not in taken:
            other.append(f"{place} is commit {commit}, {', '.join(sorted(taken))} was taken")
    if moved:
        return Sighted.moved_on("; ".join([*moved, *other]))
    return Sighted.other("; ".join(other)) if other else None


def _at_commits(settings: C, commits: dict[str, str]) -> C:
    changed: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            inner = _at_commits(value, commits)
            changed |= {name: inner} if inner is not value else {}
        elif any(isinstance(mark, Place) for mark in field.metadata) and any(map(is_hub, _texts(value))):
            places = tuple(_at_commit(text, commits) for text in _texts(value))
            changed[name] = places if isinstance(value, tuple) else places[0]
    return settings.model_copy(update=changed) if changed else settings


def _at_commit(text: str, commits: dict[str, str]) -> str:
    if not is_hub(text):
        return text
    from vitpipe.infra.storage.hub_client import commit_of  # huggingface_hub, only where the Hub is meant

    place = hub_place(text)
    if place.root not in commits:
        commits[place.root] = commit_of(place)
    return place.at(commits[place.root]).uri


def _texts(value: Any) -> Iterator[str]:
    yield from (one for one in (value if isinstance(value, tuple) else (value,)) if isinstance(one, str))
