"""The search for near-duplicates on images that a test makes up, in parts of any size."""

import hashlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from inprocess import make_context

from vitpipe.stages.ingest.choose.duplicate import Duplicate
from vitpipe.stages.ingest.choose.keep import KeepRule, KeepTask, keep
from vitpipe.stages.ingest.choose.near_search import search
from vitpipe.stages.ingest.config import IngestResources
from vitpipe.stages.ingest.lists.sort import apart
from vitpipe.stages.ingest.look.likeness import LIKENESS_BYTES
from vitpipe.stages.ingest.look.seen import beside, seen_rows
from vitpipe.stages.ingest.parts.lines import lines_of
from vitpipe.stages.ingest.parts.made import Parts
from vitpipe.stages.ingest.parts.rows import SHEET_ROWS, item_rows, names_of, packed
from vitpipe.stages.ingest.parts.sheets import Sheets, cut, write_sheets


class Found(NamedTuple):
    """As `plain_near` has it."""

    dropped: list[Duplicate]
    in_part: int
    crowd: set
    """Numbers of excluded looks and names of images that are near too many."""


def near_duplicates(images, excluded, most, part=10**9, bins=1, cluster=None):
    """What a search in parts of so many images finds; the gone bits, the lines and the counts agree."""
    with tempfile.TemporaryDirectory() as folder:
        ctx = make_context(Path(folder), "shards", IngestResources(), cluster)
        images = sorted(images, key=lambda image: packed(image.item.name))
        listed, contents = [], []
        for first in range(0, len(images), part):
            some = images[first : first + part]
            table = item_rows(image.item for image in some)
            seen = [replaced(image) for image in some]
            listed.append(write_sheets(ctx.out, f"listed-{first}", cut(table, SHEET_ROWS)))
            sound, _ = beside(table, seen_rows(seen), first)
            of_each = np.array([int(one.sha256[:8], 16) % bins for one in seen])
            contents.append(write_sheets(ctx.out, f"contents-{first}", apart(sound, of_each, bins)))
        held = excluded_sheets(excluded, ctx, part)
        rule = KeepRule(False, ("train",), (1.0,), 0, 1)
        keeps = [KeepTask(ctx.out, number, contents, rule, {}) for number in range(bins)]
        splits = {image.item.split for image in images}
        mixed = "train" in splits and len(splits) > 1
        found = search(listed, keeps, held, most, mixed, ctx, Parts(ctx))
        lines = [json.loads(text) for made in found.made for _, text in lines_of(ctx.out.node, [made.files["lines"]])]
        dropped = sorted((Duplicate(**row) for row in lines), key=lambda one: one.source)
        check(found, dropped, images, ctx, keeps)
        return Found(dropped, found.in_part, crowd_of(ctx, images, len(excluded)))


def crowd_of(ctx, images, given):
    found = set()
    for entry in ctx.out.node.list("a1/parts/crowd/"):
        if entry.path.endswith(".json"):
            sheets = Sheets.of(json.loads(ctx.out.node.read(entry.path))["files"]["places"])
            for place in sheets.read(ctx.out.node, 0).column("place").to_pylist():
                found.add(place if place < given else images[(place - given) % len(images)].item.name)
    return found


def replaced(image):
    digest = hashlib.sha256(packed(image.item.name)).hexdigest()
    return image.seen._replace(sha256=digest, pixels_sha256=digest)


def excluded_sheets(excluded, ctx, part):
    sheets = []
    for first in range(0, len(excluded), part):
        some = excluded[first : first + part]
        columns = {
            "name": pa.array([packed(one.name) for one in some], pa.binary()),
            "look": pa.array([one.look for one in some], pa.binary(LIKENESS_BYTES)),
        }
        sheets.append(write_sheets(ctx.out, f"excluded-{first}", [pa.table(columns)]))
    return sheets


def check(found, dropped, images, ctx, keeps):
    """What is told in several ways is the same."""
    gone = {one.source for one in dropped}
    assert len(gone) == len(dropped)
    sheets = [keep(replace(task, near=found.gone)).files["rows"] for task in keeps]
    left = [name for one in sheets for table in one.all(ctx.out.node) for name in names_of(table)]
    assert sorted(left) == sorted({image.item.name for image in images} - gone)
    assert sum(made.facts["kinds"].get("near", 0) for made in found.made) == len(gone)
    assert sum(made.facts["held_out"] for made in found.made) == sum("://" in one.of for one in dropped)
    assert sum(made.facts["contradict"] for made in found.made) == sum(not one.same_labels for one in dropped)
    worst = sorted(dropped, key=lambda one: (-one.distance, -one.second, one.source))[:24]
    likes = [pair.like if isinstance(pair.like, str) else pair.like.name for pair in found.pairs]
    told = [(pair.left.name, like, pair.text) for pair, like in zip(found.pairs, likes, strict=True)]
    assert told == [(one.source, one.of, f"{one.distance} and {one.second} bits") for one in worst]
