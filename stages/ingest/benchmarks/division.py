"""From official splits to the splits of the shards: pieces of them, in an order that everybody can compute.

TensorFlow Datasets deals the examples of a split by the MD5 of the split's name and the example's key (its
`core/shuffle.py` and `core/hashing.py`); VTAB-1k's `train[:800]` means the first 800 of that order.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from vitpipe.infra.errors import UsageError
from vitpipe.stages.ingest.benchmarks.entries import OfficialImage, list_lines
from vitpipe.stages.ingest.benchmarks.registry import Benchmark
from vitpipe.stages.ingest.listing import some

Divided = list[tuple[OfficialImage, str]]
"""Each entry with its split in the shards."""


def divided(benchmark: Benchmark, entries: Sequence[OfficialImage], root: Path) -> Divided:
    """Every entry that some split takes. A file `NAME.SPLIT.txt` below the root, the name of one entry a line, fixes
    the examples of that split; the others then leave those out. UsageError for lists that do not fit.
    """
    if not benchmark.parts:
        return [(entry, entry.split) for entry in entries]
    lists = {split: list_path(benchmark, split, root) for split in benchmark.parts}
    fixed = {split: _fixed(benchmark, split, entries, path) for split, path in lists.items() if path.is_file()}
    order = _in_order(entries)
    taken = {entry.name for found in fixed.values() for entry in found}
    made: Divided = []
    for split, pieces in benchmark.parts.items():
        dealt = [entry for piece in pieces for entry in order.get(piece.split, [])[piece.start : piece.stop]]
        pool = fixed.get(split) or [entry for entry in dealt if entry.name not in taken]
        if len(pool) != benchmark.splits[split]:
            found = f"{split} has {len(pool)} images left, officially {benchmark.splits[split]}"
            do = f"fix it too, by {lists[split].name}, or take the lists away"
            raise UsageError(f"divide {benchmark.title} by the lists below {root}", found, do)
        made += [(entry, split) for entry in pool]
    return made


def _in_order(entries: Sequence[OfficialImage]) -> dict[str, list[OfficialImage]]:
    """The examples of each official split as TensorFlow Datasets deals them."""
    by_split: dict[str, list[OfficialImage]] = {}
    for entry in sorted(entries, key=lambda entry: tfds_place(entry.split, entry.key)):
        by_split.setdefault(entry.split, []).append(entry)
    return by_split


def tfds_place(split: str, key: str) -> bytes:
    """Where an example comes in TensorFlow Datasets' order of its split."""
    return hashlib.md5(f"{split}{key}".encode(), usedforsecurity=False).digest()


def list_path(benchmark: Benchmark, split: str, root: Path) -> Path:
    """The file that fixes a split's examples, where somebody put it."""
    return root / f"{benchmark.name}.{split}.txt"


def _fixed(benchmark: Benchmark, split: str, entries: Sequence[OfficialImage], path: Path) -> list[OfficialImage]:
    known = {entry.name: entry for entry in entries}
    wanted = list_lines(path)
    strange = [name for name in wanted if name not in known]
    if strange or len(set(wanted)) != len(wanted):
        found = f"it names {len(wanted) - len(set(wanted))} images twice"
        if strange:
            found = f"{len(strange)} of its {len(wanted)} lines name no image: {some(strange)}"
        asked = f"take the {split} split of {benchmark.title} from {path}"
        raise UsageError(asked, found, "write the place of one image below the root a line")
    return [known[name] for name in wanted]
