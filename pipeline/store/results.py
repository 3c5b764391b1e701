"""Where results lie in a store, by fingerprint: empty files `_results/{fingerprint}/{seconds}/{run}/{node}`.

Only a hint, by which one request finds a result among thousands of runs: records are what is believed. No run has such
a name.
"""

import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from vitpipe.infra.errors import IntegrityError, StorageError, UsageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.store.records import Committed, read_committed
from vitpipe.stages.artifacts import Origin

RESULTS = "_results"
FEW = 3
"""Fingerprints that are quicker asked for one by one."""
NAMES_AT_MOST = 5000
"""Results of a store whose names are read to know which of many are there: five requests."""
_PLACE = re.compile(r"(?P<seconds>\d{12})/(?P<run>[^/]+)/(?P<node>[^/]+(?:/[^/]+)?)")


@dataclass(frozen=True)
class ResultPlace:
    """A node of a run that committed, or was about to commit, a result."""

    run: str
    node: str


def announce(store: Store, fingerprint: str, place: ResultPlace) -> None:
    """Leave the hint that a result of this fingerprint is there. StorageError."""
    store.write(f"{RESULTS}/{fingerprint}/{int(time.time()):012d}/{place.run}/{place.node}", b"")


def perhaps_announced(store: Store, fingerprints: Collection[str]) -> set[str]:
    """Find those of many fingerprints for which there is any hint, by the names of folders; of few, all. StorageError.

    All of them too in a store of so many results that to ask for each is less.
    """
    if len(fingerprints) <= FEW:
        return set(fingerprints)
    names = set(islice(store.child(RESULTS).folders(), NAMES_AT_MOST))
    return set(fingerprints) if len(names) == NAMES_AT_MOST else names & set(fingerprints)


def announced(store: Store, fingerprint: str) -> list[ResultPlace]:
    """List where such results were announced, the newest first, each once."""
    prefix = f"{RESULTS}/{fingerprint}/"
    found = [_PLACE.fullmatch(entry.path.removeprefix(prefix)) for entry in store.list(prefix)]
    newest_first = sorted((match for match in found if match), key=lambda match: match["seconds"], reverse=True)
    return list(dict.fromkeys(ResultPlace(match["run"], match["node"]) for match in newest_first))


def is_equal(one: Committed, other: Committed) -> bool:
    """Whether two records are of the same result: the same recipe, and the same files with the same bytes."""
    return one.record.fingerprint == other.record.fingerprint and _files(one) == _files(other)


def taken_by(result: Committed) -> dict[str, tuple[Committed | None, ...]]:
    """Read the records that a result was made of, by input; None for one that is gone, unreadable or another now."""
    run = result.uri.removesuffix(f"/{result.record.node}")

    def read(ref: Origin) -> Committed | None:
        _, found, node = ref.uri.rpartition(f"/{run.rpartition('/')[2]}/")  # the store may have moved since
        try:
            there = read_committed(open_store(f"{run}/{node}" if found else ref.uri))
        except (IntegrityError, UsageError, StorageError):
            return None
        return there if there and there.sha256 == ref.record_sha256 else None

    return {name: tuple(map(read, refs)) for name, refs in result.record.inputs.items() if refs}


def are_equal(taken: Mapping[str, Sequence[Committed | None]], given: Mapping[str, Sequence[Committed]]) -> bool:
    """Whether what a result was made of, as `taken_by` reads it, is equal to what is given, input by input."""
    given = {name: many for name, many in given.items() if many}
    return taken.keys() == given.keys() and all(
        len(taken[name]) == len(many)
        and all(one is not None and is_equal(one, now) for one, now in zip(taken[name], many, strict=True))
        for name, many in given.items()
    )


def _files(of: Committed) -> list[tuple[str, str]]:
    return sorted((file.path, file.sha256) for file in of.record.files)
