"""The plan of an ingest of many images, from their listing to their shards, on synthetic rows: memory and seconds.

PYTHONPATH=.:tests python -m tests.benchmarks.millions [near] [IMAGES ...]

Sorting, choosing and planning are the stage's own; what files list and what a look at images leaves is made up. `near`
searches for near-duplicates too: drawn looks of seven views, one image in a hundred nearly another's.
Each number of images is a driver of its own with two workers; before them 1 million by the code that held every image.
"""

import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from inprocess import make_context

from vitpipe.infra.work import Done
from vitpipe.stages.contract import Inputs, Out, StageContext
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.ingest.choose.chosen import choose
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.listing import Item, Items, Listing
from vitpipe.stages.ingest.lists.listed import in_parts, part_rows
from vitpipe.stages.ingest.lists.raw import NameSample, RawFile, RawListing
from vitpipe.stages.ingest.look.likeness import LIKENESS_BYTES
from vitpipe.stages.ingest.look.seen import SEEN
from vitpipe.stages.ingest.parts.made import MadePart, Parts, finish, part_path
from vitpipe.stages.ingest.parts.rows import SCHEMA, SHEET_ROWS
from vitpipe.stages.ingest.parts.sheets import Sheets, cut, write_sheets
from vitpipe.stages.ingest.sources.inventory import Inventory

IMAGES = (1_000_000, 10_000_000)
BEFORE, BEFORE_IMAGES = "6ca2673", 1_000_000
"""The last commit whose driver held a row of every image."""
FILE_ROWS, CLASSES, SIZE = 10_000, 1_000, 110_000
COPIES = 0.01
WORKERS = 2
VIEWS, HAMMING = 7, 4
DONE_WITH = {
    "sort": ("raw/*",), "seen": ("spread/*",), "looks_left": ("seen/*",), "meet": ("looks/*",),
    "decide": ("distinct/*.group*", "met/*"), "keep": ("seen/*",), "order": ("content/*",), "": ("kept/*",),
}  # fmt: skip
"""Parts that nobody reads any more when such tasks begin: 100 million would not fit on a small disk together."""


def main(asked: Sequence[str] = ()) -> None:
    """A line for each number of images."""
    print("\nPlanning an ingest of synthetic images, seconds and highest memory of one process, 2 workers")
    before = _before()
    print(f"  {BEFORE_IMAGES:>13,} images held by the driver, as before: {before}")
    near = ["near"] if "near" in asked else []
    for images in [int(one) for one in asked if one != "near"] or IMAGES:
        command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.millions", "--one", str(images), *near]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        seconds = ", ".join(f"{name} {spent:.0f}" for name, spent in found["seconds"].items())
        highest = max(found["task_kb"], key=found["task_kb"].get)
        megabytes, spent = found["task_kb"][highest] / 1e3, sum(found["seconds"].values())
        print(
            f"  {images:>13,} images in {found['parts']} parts: driver {found['driver_mb']:.0f} MB, tasks at most "
            f"{megabytes:.0f} MB ({highest}), {spent:.0f} s ({seconds}), "
            f"{found['bytes'] / images:.0f} bytes an image in the store, {found['shards']} shards of "
            f"{found['kept']:,} images, {found['duplicates']:,} copies", flush=True,
        )  # fmt: skip


def one(images: int, near: bool) -> None:
    """In a process of its own."""
    with tempfile.TemporaryDirectory(prefix="millions-") as folder:
        cluster = Workers(Path(folder))
        ctx = make_context(Path(folder), "shards", IngestResources(), cluster)
        asked = {"source": {"kind": "folder", "root": "/nowhere"}, "splits": {"train": 0.99, "test": 0.01}}
        config = IngestConfig.model_validate(
            {**asked, "deduplicate": {"near": {"hamming": HAMMING}}} if near else asked
        )
        parts = Parts(ctx)
        listed = in_parts(
            listing(images, ctx, parts), Inventory.of(()), config.source, 0, ctx, parts, part_rows(config)
        )
        tasks = [
            SeenTask(ctx.out, part.rows, chunk, images, number, near)
            for number, part in enumerate(listed.parts)
            for chunk in part.chunks
        ]
        found = {task.path: made.files["rows"] for task, made in parts.make(seen, tasks, lambda task: "seen")}
        of_each = [[found[task.path] for task in tasks if task.part == number] for number in range(len(listed.parts))]
        chosen = choose(listed, of_each, Unread(), {}, config, Inputs({}), ctx, parts)
        cluster.begin("")
        kept = sum(len(plan.images) for plan in chosen.plans)
        assert kept + chosen.duplicates == images and abs(chosen.duplicates / images - (1 + near) * COPIES) < 0.001
        sizes = [plan.image_bytes for plan in chosen.plans]
        assert sum(sizes) == kept * SIZE and len(list(chosen.plans[0].images)) > 1_000
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(json.dumps({
        "driver_mb": own, "task_kb": cluster.task_kb, "seconds": cluster.seconds, "bytes": cluster.bytes,
        "parts": len(listed.parts), "shards": len(sizes), "kept": kept, "duplicates": chosen.duplicates,
    }))  # fmt: skip


class Workers:
    """A cluster of two processes, which notes their memory, and the seconds of each kind of task."""

    def __init__(self, folder: Path) -> None:
        self._parts = folder / "store/test/shards/a1/parts"
        self._began, self._kind = time.monotonic(), ""
        self.seconds = Counter[str]()
        self._pool = ProcessPoolExecutor(WORKERS, multiprocessing.get_context("forkserver"))
        self.task_kb, self.bytes = Counter[str](), 0

    def begin(self, kind: str) -> None:
        """Tasks of another kind begin: let go what nobody reads any more."""
        self.seconds[self._kind] += time.monotonic() - self._began
        self.seconds = Counter({name: spent for name, spent in self.seconds.items() if name})
        self._began, self._kind = time.monotonic(), kind
        for path in (path for several in DONE_WITH.get(kind, ()) for path in self._parts.glob(several)):
            self.bytes += path.stat().st_size
            path.unlink()
        if not kind:
            self.bytes += sum(path.stat().st_size for path in self._parts.rglob("*") if path.is_file())

    def fan(self, fn: Any, items: Sequence[Any], *, resources: Any, label: Any = str) -> Iterator[Done[Any, Any]]:
        """Each item by one of the workers."""
        self.begin(getattr(fn, "func", fn).__name__)
        begun = {self._pool.submit(_run, fn, item): item for item in items}
        for future in as_completed(list(begun)):
            result, kilobytes = future.result()
            self.task_kb[self._kind] = max(self.task_kb[self._kind], kilobytes)
            yield Done(begun.pop(future), result=result)
        self.begin("between")


def _run(fn: Any, item: Any) -> tuple[Any, int]:
    """The result, and the highest memory of the process meanwhile in KB."""
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten
    result = fn(item)
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return result, int(peak.split()[1])


@dataclass(frozen=True)
class RawTask:
    """A file of a source, as its listing would have found it."""

    out: Out
    number: int
    files: int
    images: int

    @property
    def path(self) -> str:
        return part_path("raw", [self.number, self.files, self.images])


def made_up(task: RawTask) -> MadePart:
    """Names as those of tars of ImageNet; files are in no order of names, so that rows have to move."""
    first, file = task.number * FILE_ROWS, f"shard-{task.number * 7919 % task.files:06d}.tar"
    numbers = np.arange(first, min(first + FILE_ROWS, task.images))
    count = len(numbers)
    columns = {
        "name": [f"{file}#n{number % CLASSES:08d}_{number:09d}".encode() for number in numbers.tolist()],
        "labels": pa.ListArray.from_arrays(np.arange(count + 1, dtype=np.int32), (numbers % CLASSES).astype(np.int32)),
        "split": pa.nulls(count, pa.binary()), "size": np.full(count, SIZE),
        "place": pa.ListArray.from_arrays(
            2 * np.arange(count + 1, dtype=np.int32), np.stack([numbers // FILE_ROWS, 1536 * numbers], 1).ravel()
        ),
        "fault": pa.nulls(count, pa.binary()), "mark": np.zeros(count, np.int64),
    }  # fmt: skip
    table = pa.table(columns, schema=SCHEMA)
    samples = [(columns["name"][count // 2].decode(), count)]
    return finish(task, {"samples": samples}, rows=write_sheets(task.out, f"{task.path}.rows", cut(table, SHEET_ROWS)))


def listing(images: int, ctx: StageContext, parts: Parts) -> RawListing:
    """A file of names for each task."""
    count = -(-images // FILE_ROWS)
    tasks = [RawTask(ctx.out, number, count, images) for number in range(count)]
    files = [
        RawFile(made.files["rows"], [NameSample(Item(name, ()), rows) for name, rows in made.facts["samples"]])
        for made in parts.all(made_up, tasks, lambda task: "raw")
    ]
    return RawListing(Listing(Items(), tuple(f"n{number:08d}" for number in range(CLASSES))), files)


@dataclass(frozen=True)
class SeenTask:
    """What a look at a chunk would have found."""

    out: Out
    rows: Sheets
    chunk: range
    images: int
    part: int
    near: bool

    @property
    def path(self) -> str:
        return part_path("seen", [self.rows.sha256, self.chunk.start])


def seen(task: SeenTask) -> MadePart:
    """Digests as of photographs, one in a hundred of them another's too."""
    count = len(task.chunk)
    drawn = np.random.default_rng((task.part, task.chunk.start))
    pixels, sha256 = (drawn.integers(0, 256, (count, 32), dtype=np.uint8) for _ in range(2))
    copies = np.flatnonzero(drawn.random(count) < COPIES)
    pixels[copies] = pixels[copies - 1]  # of some two in a row are the same
    looks = pa.nulls(count, pa.binary())
    if task.near:
        views = drawn.integers(0, 256, (count, VIEWS, LIKENESS_BYTES), dtype=np.uint8)
        for row in np.flatnonzero(drawn.random(count) < COPIES).tolist():
            views[row] = views[row - 1] ^ np.eye(1, LIKENESS_BYTES, drawn.integers(LIKENESS_BYTES), dtype=np.uint8)
        looks = pa.array([one.tobytes() for one in views], pa.binary())
    columns = {
        "sha256": _digests(sha256), "pixels_sha256": _digests(pixels), "bytes": np.full(count, SIZE),
        "ext": np.zeros(count, np.int8), "width": np.full(count, 500, np.int32),
        "height": np.full(count, 375, np.int32), "chunk": np.full(count, task.part, np.int32),
        "offset": np.zeros(count, np.int64), "looks": looks,
        "reencoded": np.zeros(count, bool), "reason": pa.nulls(count, pa.binary()),
    }  # fmt: skip
    return finish(task, {}, rows=write_sheets(task.out, f"{task.path}.rows", [pa.table(columns, schema=SEEN)]))


class Unread:
    """A source whose images nobody has: those on the sheet of doubtful pairs are grey."""

    def reads(self, items: Sequence[Item]) -> Iterator[BadImage]:
        return (BadImage("made up") for _ in items)


def _digests(rows: npt.NDArray[np.uint8]) -> Any:
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), len(rows), [None, pa.py_buffer(rows.tobytes())])


AS_BEFORE = """
import hashlib, json, resource, sys, time
import numpy as np
from vitpipe.stages.ingest.choose.select import plan_shards, without_duplicates
from vitpipe.stages.ingest.config import IngestConfig
from vitpipe.stages.ingest.listing import Item, Items, Listing
from vitpipe.stages.ingest.look.image import ImageTable
from vitpipe.stages.ingest.look.scan import SoundImage

count, classes, size = map(int, sys.argv[1:])
began, base = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
drawn = np.random.default_rng(0)
items = Items(
    Item(f"shard-{n // 10_000:06d}.tar#n{n % classes:08d}_{n:09d}", (n % classes,), None, size, (n // 10_000, 1536 * n))
    for n in range(count)
)
listing = Listing(items.by_name(), ())
listing.sha256
images = ImageTable(listing.items)
last = ""
for start in range(0, count, 512):
    seen = []
    for copied in drawn.random(min(512, count - start)) < 0.01:
        sha256 = drawn.bytes(32).hex()
        last = last if copied and last else drawn.bytes(32).hex()
        seen.append(SoundImage(sha256, last, size, "jpg", 500, 375, (start // 512, 0)))
    images.put(range(start, start + len(seen)), seen)
config = IngestConfig.model_validate({"source": {"kind": "digits"}, "splits": {"train": 0.99, "test": 0.01}})
kept, _ = without_duplicates(images.sound(range(count)), {})
plans = plan_shards(kept, config)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([peak / 1e3, 1024 * (peak - base) / count, time.monotonic() - began]))
"""


def _before() -> str:
    root = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory(prefix="millions-before-") as folder:
        archive = subprocess.run(["git", "-C", root, "archive", BEFORE], stdout=subprocess.PIPE, check=False)
        if archive.returncode:
            return f"not measured, this clone has no {BEFORE}"
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        asked = [sys.executable, "-W", "ignore", "-c", AS_BEFORE, *map(str, (BEFORE_IMAGES, CLASSES, SIZE))]
        done = subprocess.run(asked, env={"PYTHONPATH": folder}, cwd=folder, stdout=subprocess.PIPE, check=True)
    megabytes, each, seconds = json.loads(done.stdout)
    return f"driver {megabytes:.0f} MB, {each:.0f} bytes an image, {seconds:.0f} s"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(int(sys.argv[2]), sys.argv[3:] == ["near"])
    else:
        main(sys.argv[1:])
