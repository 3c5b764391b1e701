"""Of the images of one bin of contents, which are kept, and in which split. No torch.

What is equal is in one bin, so a task needs no other's: exact copies, excluded contents, splits by content.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vitpipe.stages.contract import Out
from vitpipe.stages.ingest.choose.duplicate import Duplicate, counted
from vitpipe.stages.ingest.draw import unit_hashes
from vitpipe.stages.ingest.lists.sort import apart
from vitpipe.stages.ingest.look.seen import NUMBERED, beginnings, digests
from vitpipe.stages.ingest.parts.lines import line, line_tables
from vitpipe.stages.ingest.parts.made import MadePart, finish, part_path
from vitpipe.stages.ingest.parts.rows import joined_rows, names_of, packed, sorted_rows, unpacked
from vitpipe.stages.ingest.parts.sheets import Sheets, read_each, write_sheets

TRAIN = packed("train")
SHUFFLE = "shuffle"
"""The column of hashes by which images are ordered."""
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class KeepRule:
    """What all bins are told alike. `repr` tells all of it."""

    exact: bool
    splits: tuple[str, ...]
    """By name."""
    ends: tuple[float, ...] | None
    """Where each ends in [0, 1), by content; None where images have splits of their own."""
    seed: int
    orders: int
    """Ranges into which the order of each split is cut."""


def ends_of(shares: Mapping[str, float]) -> tuple[float, ...]:
    """Where each split ends, in the order of names: the order of a mapping is no part of a recipe."""
    return tuple(accumulate((share for _, share in sorted(shares.items())), initial=0.0))[1:]


@dataclass(frozen=True)
class KeepTask:
    """One bin."""

    out: Out
    number: int
    contents: Sequence[Sheets]
    recipe: KeepRule
    excluded: Mapping[str, str]
    """Contents that may not appear, and what has each."""
    near: Sequence[Sheets] = ()
    """Which images of each part of the listing look like others."""

    @property
    def path(self) -> str:
        """As `made.PartTask` has it."""
        contents = [self.number, [one.sha256 for one in self.contents], sorted(self.excluded.items())]
        return part_path("kept", [*contents, repr(self.recipe), [one.sha256 for one in self.near]])


def keep(task: KeepTask) -> MadePart:
    """Kept images, a table for each split and range of its order; the lines of the duplicates."""
    images, gone = without_duplicates(task)
    if task.near:
        images = images.filter(pa.array(~_near_others(images, task)))
    recipe, images = task.recipe, images.drop_columns("number")
    hashes = np.fromiter(unit_hashes("shuffle", recipe.seed, names_of(images)), np.float64, images.num_rows)
    within = np.minimum((hashes * recipe.orders).astype(np.int64), recipe.orders - 1)
    cells = _splits(images, recipe) * recipe.orders + within
    count = len(recipe.splits) * recipe.orders
    rows = write_sheets(
        task.out, f"{task.path}.rows", apart(images.append_column(SHUFFLE, pa.array(hashes)), cells, count)
    )
    lines = write_sheets(task.out, f"{task.path}.lines", line_tables(line(one.source, one.row()) for one in gone))
    facts = {"cells": np.bincount(cells, minlength=count).tolist()} | counted(gone)
    return finish(task, facts, rows=rows, lines=lines)


def without_duplicates(task: KeepTask) -> tuple[Any, list[Duplicate]]:
    """Keep one image of each decoded content, none that is excluded, in the order of `duplicate.keep_order`.

    Of equals the first by name is kept, one outside the split `train` before one in it: a test image that also stands
    in the training folder leaves the training set.
    """
    images = joined_rows(read_each(task.out.node, ((one, task.number) for one in task.contents)), NUMBERED)
    images = sorted_rows(images.append_column("is_train", are_train(images)), ["is_train", "name"]).drop_columns(
        "is_train"
    )
    if not task.recipe.exact or not images.num_rows:
        return images, []
    first = _first_equal(images)
    contents = images.column("pixels_sha256")
    unwanted = pa.array([bytes.fromhex(content) for content in task.excluded], pa.binary(32))
    barred = pa.compute.is_in(contents, value_set=unwanted).to_numpy()
    gone = barred | (first != np.arange(len(first)))
    where = np.flatnonzero(gone)
    pairs = zip(_told(images.take(where)), _told(images.take(first[where])), strict=True)
    return images.filter(pa.array(~gone)), [_duplicate(*pair, task.excluded) for pair in pairs]


def are_train(images: Any) -> Any:
    """Whether each is of the split that others may not appear in."""
    return pa.compute.fill_null(pa.compute.equal(images.column("split"), TRAIN), False)


def _near_others(images: Any, task: KeepTask) -> npt.NDArray[np.bool_]:
    """Whether each image looks like another: a bit of each of a part of the listing."""
    numbers = images.column("number").to_numpy()
    order = np.argsort(numbers)
    found = np.zeros(len(numbers), dtype=bool)
    for table in read_each(task.out.node, ((one, 0) for one in task.near)):
        (part,) = table.to_pylist()
        low, end = np.searchsorted(numbers, (part["first"], part["first"] + part["count"]), sorter=order)
        bits = np.unpackbits(np.frombuffer(part["bits"], dtype=np.uint8), count=part["count"])
        found[order[low:end]] = bits[numbers[order[low:end]] - part["first"]]
    return found


def _first_equal(images: Any) -> Places:
    """Of each row the first one of equal content: itself, where none is before it."""
    codes = _codes(images)
    order = np.argsort(codes, kind="stable")
    begins = np.searchsorted(codes[order], np.arange(codes.max() + 1))
    return np.asarray(order[begins][codes])


def _codes(images: Any) -> Places:
    """A number for each content."""
    contents = images.column("pixels_sha256").combine_chunks()
    return np.asarray(pa.compute.dictionary_encode(contents).indices.to_numpy().astype(np.int64))


_Told = tuple[str, tuple[int, ...], bytes, bytes]
"""Name, labels and both digests."""


def _told(images: Any) -> Iterable[_Told]:
    columns = (images.column(name).to_pylist() for name in ("name", "labels", "sha256", "pixels_sha256"))
    for name, labels, sha256, pixels in zip(*columns, strict=True):
        yield unpacked(name), tuple(labels), sha256, pixels


def _duplicate(image: _Told, other: _Told, excluded: Mapping[str, str]) -> Duplicate:
    (name, labels, sha256, pixels), (kept, its_labels, its_sha256, _) = image, other
    where = excluded.get(pixels.hex())
    if where is not None:
        return Duplicate(name, where, "pixels", True)
    return Duplicate(name, kept, "bytes" if sha256 == its_sha256 else "pixels", labels == its_labels)


def _splits(images: Any, recipe: KeepRule) -> Places:
    """The number of each image's split. By content, all that decode alike go by the lowest digest of their bytes."""
    if recipe.ends is None:
        names = {packed(name): number for number, name in enumerate(recipe.splits)}
        found = [names[split or TRAIN] for split in images.column("split").to_pylist()]
        return np.array(found, dtype=np.int64)
    codes, digest = _codes(images) if images.num_rows else np.empty(0, np.int64), beginnings(digests(images, "sha256"))
    lowest = np.full(codes.max(initial=-1) + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(lowest, codes, digest)
    places = lowest.astype(np.float64)[codes] / 2**64
    return np.minimum(np.searchsorted(np.array(recipe.ends), places, side="right"), len(recipe.splits) - 1)
