"""Shards from images in memory to a folder in memory: images per CPU second of one thread, in turns in one process.

PYTHONPATH=.:tests python -m tests.benchmarks.writing [FOLDER]
"""

import hashlib
import io
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import webdataset as wds
from inprocess import make_context
from PIL import Image

from tests.benchmarks.photographs import KINDS, photograph_folder
from tests.benchmarks.reading import MOVED, calibration
from vitpipe.stages.images.decode import decode
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.images.index import parse_index
from vitpipe.stages.images.readback import read_back
from vitpipe.stages.ingest.choose.select import ShardPlan
from vitpipe.stages.ingest.config import IngestResources
from vitpipe.stages.ingest.listing import Item, Items, Listing
from vitpipe.stages.ingest.look.image import Image as SeenImage
from vitpipe.stages.ingest.look.scan import ScanTask, SoundImage, scan
from vitpipe.stages.ingest.look.spool import Spool
from vitpipe.stages.ingest.look.structure import check_structure
from vitpipe.stages.ingest.write.shard import ShardTask
from vitpipe.stages.ingest.write.writer import write_shard

ROUNDS = 7
SHARD_WRITER = "webdataset ShardWriter: neither check, digest nor index"
WRITING = "vitpipe: structure checked, hashed, indexed, uploaded"
STRUCTURE = "vitpipe: the same in two passes, as ingest has them; bytes hashed in each"
DECODED = "vitpipe: each image decoded too, digest of its pixels"
DEFAULT = "vitpipe: that, and read back by webdataset: what check: decode does"
READ_BACK = "webdataset reads a shard back, compared with its index"


@dataclass(frozen=True)
class Memory:
    """A source whose files are read already."""

    files: tuple[bytes, ...]
    costly: bool = False

    def listing(self) -> Listing:
        items = Items(Item(f"{number:04d}", (number % 4,), None, len(data)) for number, data in enumerate(self.files))
        return Listing(items, tuple("abcd"))

    def read(self, item: Item) -> bytes:
        return self.files[int(item.name)]

    def reads(self, items: Sequence[Item]) -> Iterator[bytes | BadImage]:
        return map(self.read, items)


def main(folder: str | None = None) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        source = Path(folder or made) / KINDS[0].name
        if not source.exists():
            photograph_folder(source, KINDS[0])
        files = tuple(path.read_bytes() for path in sorted(source.rglob("*.jpg")))
        best, moved = measure(ways(Memory(files), Path(made)), len(files))
    kilobytes = sum(map(len, files)) / len(files) / 1000
    print(f"\nWriting shards of {KINDS[0].name} JPEGs of {kilobytes:.0f} KB, {len(files)} images, "
          f"minimum of {ROUNDS} passes in turns")  # fmt: skip
    for name, rate in sorted(best.items(), key=lambda item: item[1]):
        print(f"  {name:72} {rate:7.0f} images per CPU second  {rate / best[SHARD_WRITER]:5.2f} of ShardWriter")
    cost = 1 / best[READ_BACK]
    print(f"  reading back: {cost * best[WRITING]:.0%} of writing, {cost * best[DECODED]:.0%} of ingest that decodes; "
          f"an eighth of it {cost / 8 * best[STRUCTURE]:.0%} of ingest that does not")  # fmt: skip
    print(f"  calibration moved {moved:.1%}{': VOID, run it again on a quiet machine' if moved > MOVED else ''}")


def ways(source: Memory, root: Path) -> dict[str, Callable[[], object]]:
    """What is measured; each takes all images once."""
    items = source.listing().items
    spool = Spool(root / "spool")

    def look(decodes: bool = True) -> list[SoundImage]:
        return [one for one in scan(ScanTask(0, source, items, spool, decodes=decodes)) if isinstance(one, SoundImage)]

    images = tuple(map(SeenImage, items, look()))
    plan = ShardPlan("train-000000.tar", "train", 0, images, sum(image.seen.size for image in images))
    pairs = [(key, source.read(image.item)) for key, image in zip(plan.keys, plan.images, strict=True)]

    def shard(is_read_back: bool = False) -> None:
        ctx = make_context(root / "ours", "shards", IngestResources())
        write_shard(ShardTask(ctx.task, source, spool, plan, False, is_read_back))
        shutil.rmtree(root / "ours")

    kept = make_context(root / "kept", "shards", IngestResources()).task
    made = write_shard(ShardTask(kept, source, spool, plan, False))
    index = parse_index(kept.out.node.read(made.index.at), made.index.path)
    tar = io.BytesIO(kept.out.node.read(made.tar.at))

    def back() -> None:
        tar.seek(0)
        read_back(tar, index, False, "memory")

    def structure_checked() -> None:
        for _, data in pairs:
            check_structure(data)
        shard()

    def looked_at() -> None:
        look(decodes=False)
        shard()

    def decoded(is_read_back: bool = False) -> None:
        look()
        shard(is_read_back)

    def shard_writer() -> None:
        with wds.ShardWriter(str(root / "theirs-%06d.tar"), maxsize=1e12, verbose=0) as writer:
            for key, data in pairs:
                writer.write({"__key__": key, "jpg": data, "cls": 3})
        (root / "theirs-000000.tar").unlink()

    def raw() -> None:
        block = bytes(512)
        with open(root / "raw", "wb", buffering=0) as file:
            for _, data in pairs:
                os.writev(file.fileno(), [block, data, bytes(-len(data) % 512), block, block])
        (root / "raw").unlink()

    def each(work: Callable[[bytes], object]) -> Callable[[], None]:
        def run() -> None:
            for _, data in pairs:
                work(data)

        return run

    return {
        SHARD_WRITER: shard_writer,
        WRITING: structure_checked,
        STRUCTURE: looked_at,
        DECODED: decoded,
        DEFAULT: lambda: decoded(is_read_back=True),
        READ_BACK: back,
        "decoding alone, Pillow": each(lambda data: Image.open(io.BytesIO(data)).load()),
        "decoding alone, vitpipe": each(decode),
        "limit: writev of blocks and data": raw,
        "limit: SHA-256": each(lambda data: hashlib.sha256(data).digest()),
    }


def measure(ways: dict[str, Callable[[], object]], images: int) -> tuple[dict[str, float], float]:
    """Images per CPU second of each, and how much the calibration moved."""
    best = dict.fromkeys(ways, float("inf"))
    before = calibration()
    for turn in range(ROUNDS + 1):
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            start = time.process_time()
            ways[name]()
            if turn:
                best[name] = min(best[name], (time.process_time() - start) / images)
    return {name: 1 / seconds for name, seconds in best.items()}, abs(calibration() / before - 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
