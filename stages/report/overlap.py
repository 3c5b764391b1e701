"""Images left out of each data set because they are, or look like, another image: a table and a sheet of the pairs.

Above all, test images that were found among the training images. Reads duplicates.jsonl; decides nothing.
"""

import base64
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vitpipe.stages.artifacts import COMPARED_IN_PART, ShardSet
from vitpipe.stages.paper.tables import benchmark_id, tables
from vitpipe.stages.report.record_lineage import LineageNode

ITSELF = ""
MAX_SHEET_BYTES = 3_000_000
"""A larger sheet stays beside the shards."""


@dataclass(frozen=True)
class Overlap:
    """The overlap of one data set with itself, or with the test images of an excluded one."""

    name: str
    other: str
    """URI of the excluded set; empty for the set itself."""
    equal_bytes: int
    equal_pixels: int
    near: int
    of: int
    """How many different images of the other set these equal or resemble."""
    other_labels: int
    """How many have other classes than the image they equal or resemble; counted within the set itself alone."""

    @property
    def published(self) -> str:
        """How much of that test set BiT's authors found in their pretraining sets; empty where they did not look."""
        table, known = tables()["contamination"], benchmark_id(self.other.rsplit("/", 1)[-1])
        if known not in table["columns"]:
            return ""
        place = table["columns"].index(known)
        return ", ".join(f"{data} {row[place]:,}" for data, row in table["rows"].items())


@dataclass(frozen=True)
class Overlaps:
    """All overlaps of the page."""

    rows: tuple[Overlap, ...]
    sheets: tuple[tuple[str, str], ...]
    """Name of a data set, and the sheet of its near pairs as a data URI."""
    in_part: tuple[tuple[str, int], ...] = ()
    """Name of a data set, and how many of its images look like so many that they were not compared with all."""


def overlaps(lineage: Sequence[LineageNode]) -> Overlaps:
    """Read the overlaps of every data set upstream that left images out, or was compared with another set."""
    rows: list[Overlap] = []
    sheets: list[tuple[str, str]] = []
    in_part: list[tuple[str, int]] = []
    for node in lineage:
        shards = node.artifact()
        if isinstance(shards, ShardSet) and shards.has("duplicates.jsonl"):
            excluded = [ref.uri for ref in node.record.inputs.get("exclude", ())] if node.record else []
            rows += _rows(node.name, shards, excluded)
            if count := int(shards.metrics.get(COMPARED_IN_PART, 0)):
                in_part.append((node.name, count))
            if shards.has("duplicates.png") and shards.file("duplicates.png").bytes <= MAX_SHEET_BYTES:
                picture = base64.b64encode(shards.read("duplicates.png")).decode()
                sheets.append((node.name, f"data:image/png;base64,{picture}"))
    return Overlaps(tuple(rows), tuple(sheets), tuple(in_part))


def _rows(name: str, shards: ShardSet, excluded: Sequence[str]) -> Iterator[Overlap]:
    found: dict[str, Counter[str]] = {uri: Counter() for uri in (ITSELF, *excluded)}
    images: dict[str, set[str]] = {}
    for line in shards.read("duplicates.jsonl").splitlines():
        row = json.loads(line)
        other = row["of"].rpartition("#")[0] if "://" in row["of"] else ITSELF
        counts = found.setdefault(other, Counter())
        counts[row["equal"]] += 1
        counts["other labels"] += not row["same_labels"]
        images.setdefault(other, set()).add(row["of"])
    for other, counts in found.items():
        if counts or other != ITSELF:
            equal = (counts["bytes"], counts["pixels"], counts["near"])
            yield Overlap(name, other, *equal, len(images.get(other, ())), counts["other labels"])
