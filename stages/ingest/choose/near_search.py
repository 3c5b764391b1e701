"""The search for near-duplicates among what exact copies leave: one task holds how all images look. No torch.

It takes about 1 KB of each image that looks like anything; whatever else is known of the images stays in the store.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from vitpipe.stages.contract import Out
from vitpipe.stages.ingest.choose.contact_sheet import PAIRS, Pair
from vitpipe.stages.ingest.choose.near import Excluded, near_duplicates
from vitpipe.stages.ingest.listing import Item
from vitpipe.stages.ingest.look.image import Image
from vitpipe.stages.ingest.look.scan import SoundImage
from vitpipe.stages.ingest.look.seen import images_of
from vitpipe.stages.ingest.parts.lines import line, line_tables
from vitpipe.stages.ingest.parts.made import MadePart, digest, finish, part_path
from vitpipe.stages.ingest.parts.rows import names_of, packed, unpacked
from vitpipe.stages.ingest.parts.sheets import Sheets, write_sheets


@dataclass(frozen=True)
class NearTask:
    """All that is left."""

    out: Out
    left: Sequence[Sheets]
    """Of each bin, in one table."""
    excluded: Sequence[Excluded]
    most: int
    """As in `near.near_duplicates`."""

    @property
    def path(self) -> str:
        """As `made.PartTask` has it."""
        excluded = digest([[one.name, one.look.hex(), one.labels] for one in self.excluded])
        return part_path("near", [[one.sha256 for one in self.left], excluded, self.most])


def search(task: NearTask) -> MadePart:
    """Names of what is to be left out, a table for each bin; lines of the duplicates; the most doubtful pairs."""
    images = (image for table in _tables(task) for image in _looks(table))
    found, in_part = near_duplicates(images, task.excluded, task.most)
    doubtful = sorted(found, key=lambda one: (-(one.distance or 0), -(one.second or 0), one.source))[:PAIRS]
    gone, shown = {one.source for one in found}, {name for one in doubtful for name in (one.source, one.of)}
    items = {image.item.name: image.item for table in _tables(task) for image in images_of(_named(table, shown))}
    names = write_sheets(
        task.out, f"{task.path}.names", (_named(table, gone).select(["name"]) for table in _tables(task))
    )
    lines = write_sheets(task.out, f"{task.path}.lines", line_tables(line(one.source, one.row()) for one in found))
    facts = {
        "kinds": {"near": len(found)} if found else {},
        "held_out": sum("://" in one.of for one in found),
        "contradict": sum(not one.same_labels for one in found),
        "in_part": in_part,
        "pairs": [[items[one.source], items.get(one.of), one.of, one.distance, one.second] for one in doubtful],
    }
    return finish(task, facts, names=names, lines=lines)


def pairs_of(made: MadePart) -> list[Pair]:
    """The most doubtful pairs."""
    return [
        Pair(_item(left), other if like is None else _item(like), f"{distance} and {second} bits")
        for left, like, other, distance, second in made.facts["pairs"]
    ]


def _item(plain: Sequence[Any]) -> Item:
    name, labels, split, size, place, *_ = plain
    return Item(name, tuple(labels), split, size, tuple(place))


def _tables(task: NearTask) -> Iterator[Any]:
    return (sheets.read(task.out.node, 0) for sheets in task.left)


def _looks(table: Any) -> Iterator[Image]:
    """Images with what the search needs of them alone."""
    columns = (table.column(name).to_pylist() for name in ("name", "labels", "split", "looks"))
    for name, labels, split, looks in zip(*columns, strict=True):
        if looks is not None:
            item = Item(unpacked(name), tuple(labels), None if split is None else unpacked(split))
            yield Image(item, SoundImage("", "", 0, "", 0, 0, (0, 0), looks))


def _named(table: Any, names: set[str]) -> Any:
    """The rows whose name is among these."""
    wanted = pa.array([packed(name) for name in sorted(names.intersection(names_of(table)))], pa.binary())
    return table.filter(pa.compute.is_in(table.column("name"), value_set=wanted))
