"""From what was seen of a source to the plan of its shards, bin by bin: which images are kept, where, in which order.

The driver holds where the bins are, counts, and the plans; tasks do the rest. No torch.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from vitpipe.stages.contract import Inputs, StageContext
from vitpipe.stages.ingest.choose import near as near_rule
from vitpipe.stages.ingest.choose.contact_sheet import near_sheet
from vitpipe.stages.ingest.choose.content import ContentTask, by_content, excluded_by_bin
from vitpipe.stages.ingest.choose.exclude import excluded_looks
from vitpipe.stages.ingest.choose.keep import KeepRule, KeepTask, ends_of, keep
from vitpipe.stages.ingest.choose.near_search import search
from vitpipe.stages.ingest.choose.order import OrderTask, order
from vitpipe.stages.ingest.choose.select import Ordered, ShardPlan, plan_shards
from vitpipe.stages.ingest.config import IngestConfig
from vitpipe.stages.ingest.listing import ImageReader
from vitpipe.stages.ingest.lists.listed import PartedListing, part_rows
from vitpipe.stages.ingest.parts.made import MadePart, Parts, labelled
from vitpipe.stages.ingest.parts.sheets import Sheets


@dataclass(frozen=True)
class Chosen:
    """What became of the images."""

    plans: Sequence[ShardPlan]
    quarantined: Sequence[Sheets]
    """Lines of those that are bad: one after another they are in the order of names."""
    dropped: Sequence[Sheets]
    """Lines of the duplicates, each sorted."""
    duplicates: int
    sheet: bytes
    """A picture of the near ones, if there are any."""
    in_part: int
    """Images that were not compared with all that they may look like."""


def choose(
    listed: PartedListing,
    seen: Sequence[Sequence[Sheets]],
    source: ImageReader,
    excluded: Mapping[str, str],
    config: IngestConfig,
    inputs: Inputs,
    ctx: StageContext,
    parts: Parts,
) -> Chosen:
    """Exact copies first, then near ones where they are asked for, then splits, order and shards.

    `seen` is what was seen of the chunks of each part of the listing.
    """
    bins = -(-listed.count // part_rows(config))
    starts = accumulate((part.rows.rows for part in listed.parts), initial=0)
    tasks = [
        ContentTask(ctx.out, part.rows, own, bins, first)
        for part, own, first in zip(listed.parts, seen, starts, strict=False)  # the last start is the end
    ]
    contents = parts.all(by_content, tasks, labelled("content"))
    rows = [made.files["rows"] for made in contents]
    recipe, barred = _recipe(listed, bool(excluded), bins, config), excluded_by_bin(excluded, bins)
    keeps = [KeepTask(ctx.out, number, rows, recipe, barred[number]) for number in range(bins)]
    near = None
    if config.deduplicate.near is not None:
        looks, splits = excluded_looks(inputs, ctx, parts), set(listed.splits)
        mixed = "train" in splits and len(splits) > 1
        rows, most = [part.rows for part in listed.parts], config.deduplicate.near.hamming
        near = search(rows, keeps, looks, most, mixed, ctx, parts)
        keeps = [replace(task, near=near.gone) for task in keeps]
    kept = parts.all(keep, keeps, labelled("keep"))
    gone = [*kept, *(near.made if near else [])]
    _tell(gone, ctx)
    in_part = near.in_part if near else 0
    if in_part:
        ctx.events.emit("note", _told_in_part(in_part))
    return Chosen(
        plans=plan_shards(_ordered(kept, recipe, ctx, parts), config, ctx.out.node),
        quarantined=[made.files["lines"] for made in contents],
        dropped=[made.files["lines"] for made in gone],
        duplicates=sum(sum(made.facts["kinds"].values()) for made in gone),
        sheet=near_sheet(near.pairs, source, inputs, ctx) if near and near.pairs else b"",
        in_part=in_part,
    )


def _recipe(listed: PartedListing, excludes: bool, bins: int, config: IngestConfig) -> KeepRule:
    exact, seed = config.deduplicate.exact or excludes, config.shuffle_seed
    if isinstance(config.splits, str):
        names = sorted({name or "train" for name in listed.splits})
        return KeepRule(exact, tuple(names), None, seed, bins)
    return KeepRule(exact, tuple(sorted(config.splits)), ends_of(config.splits), seed, bins)


def _ordered(kept: Sequence[MadePart], recipe: KeepRule, ctx: StageContext, parts: Parts) -> dict[str, list[Ordered]]:
    """The ranges of each split's order that hold anything."""
    counts = sum((np.array(made.facts["cells"]) for made in kept), np.zeros(1, dtype=np.int64))
    cells = np.flatnonzero(counts).tolist()
    rows = [made.files["rows"] for made in kept]
    made = parts.all(order, [OrderTask(ctx.out, cell, rows) for cell in cells], labelled("order"))
    found: dict[str, list[Ordered]] = {}
    for cell, one in zip(cells, made, strict=True):
        ordered = Ordered(one.files["rows"], one.files["sizes"])
        found.setdefault(recipe.splits[cell // recipe.orders], []).append(ordered)
    return found


def _tell(gone: Sequence[MadePart], ctx: StageContext) -> None:
    """What the duplicates are, in a sentence."""
    kinds = Counter[str]()
    for made in gone:
        kinds.update(made.facts["kinds"])
    if not kinds:
        return
    counts = ", ".join(f"{kinds[kind]} {kind}" for kind in ("bytes", "pixels", "near") if kinds[kind])
    held_out, others = (sum(made.facts[name] for made in gone) for name in ("held_out", "contradict"))
    of_others = f"; {held_out} of them are test images of the excluded sets" if held_out else ""
    contradict = f"; {others} of them bear other classes than the image that stays" if others else ""
    told = f"{kinds.total()} duplicates were left out, by what is equal: {counts}{of_others}{contradict}"
    ctx.events.emit("note", told)


def _told_in_part(images: int) -> str:
    many = f"{images} images may look like very many that are kept"
    return f"{many} and were compared with the first {near_rule.MOST_KEPT:,} of these alone: copies may be left"
