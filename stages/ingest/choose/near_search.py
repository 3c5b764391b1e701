"""The search for near-duplicates among what exact copies leave, step by step: tasks hold a range each. No torch.

The driver holds where their parts are, and counts. Only which images of crowds are kept is decided by one task, which
holds these, and a bit for each other image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from vitpipe.stages.contract import StageContext
from vitpipe.stages.ingest.choose.contact_sheet import PAIRS, Pair
from vitpipe.stages.ingest.choose.decide import DecideTask, PairsTask, TwinsTask, decide, pairs_of_range, with_twins
from vitpipe.stages.ingest.choose.duplicate import Duplicate
from vitpipe.stages.ingest.choose.keep import KeepTask
from vitpipe.stages.ingest.choose.looks import DistinctTask, LooksTask, distinct, looks_left
from vitpipe.stages.ingest.choose.meet import CellTask, CrowdTask, CrowdViewsTask, all_crowded, crowd_views, meet
from vitpipe.stages.ingest.choose.near import NearRule
from vitpipe.stages.ingest.choose.near_names import LeftOutTask, MatchTask, doubt, leave_out, name_matches
from vitpipe.stages.ingest.listing import Item
from vitpipe.stages.ingest.parts.made import MadePart, Parts, labelled
from vitpipe.stages.ingest.parts.rows import items_of, rows_between
from vitpipe.stages.ingest.parts.sheets import Sheets


@dataclass(frozen=True)
class NearFound:
    """What looks like something that is kept."""

    made: Sequence[MadePart]
    """Of each part of the listing."""
    in_part: int
    """Images that were not compared with all that they may look like."""
    pairs: Sequence[Pair]
    """The most doubtful."""

    @property
    def gone(self) -> list[Sheets]:
        """Which images of each part are left out."""
        return [made.files["gone"] for made in self.made]


def search(
    listed: Sequence[Sheets],
    keeps: Sequence[KeepTask],
    excluded: Sequence[Sheets],
    most: int,
    mixed: bool,
    ctx: StageContext,
    parts: Parts,
) -> NearFound:
    """What is within `most` bits of an excluded look, or of an image that is kept; `keeps` are all bins of contents.

    In the order of `duplicate.keep_order`; an image like one that was itself left out, but like none that is kept,
    stays; those that look the same in all 256 bits fare alike. Two are alike when one of them whole is like the other,
    whole or trimmed. Images without structure are like nothing.
    """
    out = ctx.out
    starts = tuple(accumulate((rows.rows for rows in listed), initial=0))
    rule = NearRule.of(most, sum(one.rows for one in excluded), starts, mixed)
    looks = parts.all(looks_left, [LooksTask(keep, rule) for keep in keeps], labelled("looks"))
    rows, ranges = [made.files["rows"] for made in looks], range(rule.ranges)
    tasks = [DistinctTask(out, number, rows, excluded, rule) for number in ranges]
    own = parts.all(distinct, tasks, labelled("distinct"))
    decided = _decided(own, rule, ctx, parts)
    twins = [made.files["twins"] for made in own]
    matched = [TwinsTask(out, number, decided.files[str(number)], twins, rule) for number in ranges]
    found = [made.files["rows"] for made in parts.all(with_twins, matched, labelled("twins"))]
    names = [*([rows] for rows in listed), list(excluded)]
    whose = [MatchTask(out, number, one, found, rule) for number, one in enumerate(names) if one]
    named = [made.files["rows"] for made in parts.all(name_matches, whose, labelled("matches"))]
    left = [LeftOutTask(out, number, one, named, rule) for number, one in enumerate(names[:-1])]
    made = parts.all(leave_out, left, labelled("near"))
    return NearFound(made, decided.facts["in_part"], _pairs(made, listed, rule, ctx))


def _decided(own: Sequence[MadePart], rule: NearRule, ctx: StageContext, parts: Parts) -> MadePart:
    """From the views in all cells to what is left out."""
    out = ctx.out
    looks = [[made.files[f"group{group}"] for made in own] for group in range(rule.groups)]
    cells = [
        CellTask(out, group, number, looks[group], rule) for group in range(rule.groups) for number in range(rule.cells)
    ]
    met = parts.all(meet, cells, labelled("meet"))
    crowded = [made.files["crowded"] for made in met if made.files["crowded"].rows]
    crowd, views = _crowd(crowded, cells[: rule.cells], parts) if crowded else (None, [])
    pairs = [made.files["pairs"] for made in met]
    sorts = [PairsTask(out, number, pairs, crowd) for number in range(rule.ranges)]
    ranges = [made.files["pairs"] for made in parts.all(pairs_of_range, sorts, labelled("pairs"))]
    (found,) = parts.all(decide, [DecideTask(out, ranges, views, rule)], labelled("decide"))
    return found


def _crowd(crowded: Sequence[Sheets], cells: Sequence[CellTask], parts: Parts) -> tuple[Sheets, list[Sheets]]:
    """Which images are crowded, and how they look, from the cells of a group."""
    (made,) = parts.all(all_crowded, [CrowdTask(cells[0].out, crowded)], labelled("crowd"))
    crowd = made.files["places"]
    tasks = [CrowdViewsTask(cell, crowd) for cell in cells]
    return crowd, [made.files["views"] for made in parts.all(crowd_views, tasks, labelled("crowd-views"))]


def _pairs(made: Sequence[MadePart], listed: Sequence[Sheets], rule: NearRule, ctx: StageContext) -> list[Pair]:
    """The most doubtful of all parts, as they are in the listing."""

    def item(number: int) -> Item:
        part = next(part for part in reversed(range(rule.parts)) if rule.starts[part] <= number)
        row = number - rule.starts[part]
        return items_of(rows_between(listed[part], ctx.out.node, row, row + 1))[0]

    def pair(number: int, match: int, one: Duplicate) -> Pair:
        like = one.of if match < rule.given else item((match - rule.given) % rule.starts[-1])
        return Pair(item(number), like, f"{one.distance} and {one.second} bits")

    found = [(number, match, Duplicate(**row)) for part in made for number, match, row in part.facts["pairs"]]
    return [pair(*one) for one in sorted(found, key=lambda one: doubt(one[2]))[:PAIRS]]
