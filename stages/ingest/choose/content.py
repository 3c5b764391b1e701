"""Images brought together by their content: what is equal is in one bin, whatever part of a listing it is of. No torch.

A task takes a part of the listing with what was seen in it, and leaves a table for each bin.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vitpipe.stages.contract import Out
from vitpipe.stages.ingest.lists.sort import apart
from vitpipe.stages.ingest.look.seen import SEEN, beginnings, beside, digests
from vitpipe.stages.ingest.parts.lines import Line, line, line_tables
from vitpipe.stages.ingest.parts.made import MadePart, finish, part_path
from vitpipe.stages.ingest.parts.rows import joined_rows, unpacked
from vitpipe.stages.ingest.parts.sheets import Sheets, read_each, write_sheets


@dataclass(frozen=True)
class ContentTask:
    """A part of the listing."""

    out: Out
    rows: Sheets
    seen: Sequence[Sheets]
    """Of its chunks, in order."""
    bins: int
    first: int
    """Rows of the listing before it."""

    @property
    def path(self) -> str:
        """As `made.PartTask` has it."""
        return part_path("content", [self.rows.sha256, [one.sha256 for one in self.seen], self.bins, self.first])


def by_content(task: ContentTask) -> MadePart:
    """Sound images by bin, and the lines of the quarantine for the others."""
    node = task.out.node
    seen = joined_rows(read_each(node, ((sheets, 0) for sheets in task.seen)), SEEN)
    sound, bad = beside(joined_rows(task.rows.all(node)), seen, task.first)
    of_each = bins_of(digests(sound, "pixels_sha256"), task.bins)
    rows = write_sheets(task.out, f"{task.path}.rows", apart(sound, of_each, task.bins))
    lines = write_sheets(task.out, f"{task.path}.lines", line_tables(_quarantined(bad)))
    return finish(task, {}, rows=rows, lines=lines)


def _quarantined(bad: Any) -> Iterable[Line]:
    for name, reason in zip(bad.column("name").to_pylist(), bad.column("reason").to_pylist(), strict=True):
        source = unpacked(name)
        yield line(source, {"source": source, "reason": unpacked(reason)})


def bins_of(contents: npt.NDArray[np.uint8], bins: int) -> npt.NDArray[np.int64]:
    """The bin of each digest of (N, 32), by how it begins."""
    return ((beginnings(contents) >> np.uint64(32)) * np.uint64(bins) >> np.uint64(32)).astype(np.int64)


def excluded_by_bin(excluded: Mapping[str, str], bins: int) -> list[dict[str, str]]:
    """Contents that may not appear, each with what has it, by bin."""
    found: list[dict[str, str]] = [{} for _ in range(bins)]
    if excluded:
        contents = np.frombuffer(bytes.fromhex("".join(excluded)), dtype=np.uint8).reshape(-1, 32)
        for number, (content, where) in zip(bins_of(contents, bins).tolist(), excluded.items(), strict=True):
            found[number][content] = where
    return found
