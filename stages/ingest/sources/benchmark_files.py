"""A named downstream data set from its official files, their digests checked. No torch.

Images that are JPEG, PNG or WebP files stay as they are; those that come inside arrays become PNG, true to the pixel.
"""

import gzip
import hashlib
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.ingest.benchmarks.division import Divided, divided, list_path
from vitpipe.stages.ingest.benchmarks.entries import Listed
from vitpipe.stages.ingest.benchmarks.readers import READERS
from vitpipe.stages.ingest.benchmarks.registry import REGISTRY, Benchmark, OfficialFile
from vitpipe.stages.ingest.listing import Item, Items, Listing, some
from vitpipe.stages.ingest.reading import one_by_one

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class BenchmarkFiles:
    """Satisfies `listing.Source`. `root` is an absolute local path."""

    name: str
    root: str

    @property
    def costly(self) -> bool:
        return READERS[self.benchmark.reader].costly

    @property
    def benchmark(self) -> Benchmark:
        return REGISTRY[self.name]

    def listing(self) -> Listing:
        """All splits. UsageError for missing files, IntegrityError for altered ones or another number of images."""
        self._verify()
        listed = READERS[self.benchmark.reader].listed(self.benchmark, Path(self.root))
        self._count(listed)
        self._refuse_other_classes(listed)
        found = divided(self.benchmark, listed.entries, Path(self.root))
        self._refuse_one_class(found)
        items = [
            Item(entry.name, entry.labels, split, size, entry.place)
            for (entry, split), size in zip(found, self._sizes(found), strict=True)
            if entry.labels or not listed.multi_label
        ]
        notes = (*_notes(self.benchmark, Path(self.root)), *_left_out(len(found) - len(items)))
        return Listing(Items(sorted(items, key=lambda item: item.name)), listed.classes, listed.multi_label, notes)

    def reads(self, items: Sequence[Item]) -> Iterator[bytes | BadImage]:
        return one_by_one(self.read, items)

    def read(self, item: Item) -> bytes:
        return READERS[self.benchmark.reader].read(self.benchmark, Path(self.root), item)

    def _verify(self) -> None:
        if not Path(self.root).is_dir():
            raise UsageError(self._asked, "there is no such folder", self.benchmark.how_to_obtain)
        missing = [file.path for file in self.benchmark.files if not Path(self.root, file.path).is_file()]
        if missing:
            raise UsageError(self._asked, f"{len(missing)} of {len(self.benchmark.files)} official files are missing: "
                                          f"{some(missing)}", self.benchmark.how_to_obtain)  # fmt: skip
        for file in self.benchmark.files:
            _check(Path(self.root, file.path), file, self.benchmark)

    def _count(self, listed: Listed) -> None:
        """What the official files list, against what they officially are: another version has other numbers."""
        found, wanted = dict(Counter(entry.split for entry in listed.entries)), dict(self.benchmark.images)
        if found == wanted and len(listed.classes) == self.benchmark.num_classes:
            return
        raise IntegrityError(
            self._asked,
            f"its files list {found} of {len(listed.classes)} classes, officially they are {wanted} of "
            f"{self.benchmark.num_classes}: {_first_difference(found, wanted)}",
            self.benchmark.obtain,
        )

    def _refuse_other_classes(self, listed: Listed) -> None:
        """A list with a class too many, or one name for two: another version of the files than these."""
        classes = range(len(listed.classes))
        strange = next((one for one in listed.entries if any(label not in classes for label in one.labels)), None)
        twice = sorted(name for name, count in Counter(listed.classes).items() if count > 1)
        if strange is not None:
            found = f"{strange.name!r} has the classes {strange.labels}, numbers end at {len(classes) - 1}"
            raise IntegrityError(self._asked, found, self.benchmark.obtain)
        if twice:
            found = f"two of its classes have one name: {some(twice)}"
            raise IntegrityError(self._asked, found, self.benchmark.obtain)

    def _sizes(self, found: Divided) -> list[int]:
        """Bytes of each image, where they are known. UsageError for images that are listed and not there."""
        if not READERS[self.benchmark.reader].files:
            return [entry.size for entry, _ in found]
        sizes = [entry.size if entry.place else _file_size(Path(self.root, entry.name)) for entry, _ in found]
        missing = [entry.name for (entry, _), size in zip(found, sizes, strict=True) if size is None]
        if missing:
            raise UsageError(self._asked, f"{len(missing)} of {len(found)} listed images are missing: {some(missing)}",
                             self.benchmark.how_to_obtain)  # fmt: skip
        return [size or 0 for size in sizes]

    def _refuse_one_class(self, found: Divided) -> None:
        trains = [entry.labels for entry, split in found if split == "train" or "train" not in self.benchmark.splits]
        if len(set(trains)) < 2:
            told = f"its {len(trains)} images have one label alone, so there is nothing to tell apart"
            raise IntegrityError(self._asked, told, self.benchmark.obtain)

    @property
    def _asked(self) -> str:
        return f"ingest {self.benchmark.title} from {self.root}"


def _file_size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _first_difference(found: dict[str, int], wanted: dict[str, int]) -> str:
    for split in sorted({*found, *wanted}):
        if found.get(split, 0) != wanted.get(split, 0):
            short = found.get(split, 0) - wanted.get(split, 0)
            return f"{split} has {abs(short)} {'more' if short > 0 else 'fewer'} than promised"
    return "it is another version of the data set"


def _notes(benchmark: Benchmark, root: Path) -> Iterator[str]:
    yield f"{benchmark.title}: licence {benchmark.licence}"
    for split in benchmark.parts:
        if list_path(benchmark, split, root).is_file():
            yield f"{split} is what {list_path(benchmark, split, root).name} lists"
    if benchmark.unverified:
        yield f"unverified: {benchmark.unverified}"


def _left_out(count: int) -> Iterator[str]:
    if count:
        yield f"{count} images without a right label are left out: they count neither as right nor as wrong"


def _check(path: Path, file: OfficialFile, benchmark: Benchmark) -> None:
    """IntegrityError unless the file has one of its official digests, where there are any."""
    if not file.digests:
        return
    size = path.stat().st_size
    packed_anew = [digest for digest in file.digests if digest.startswith("content-")]
    if file.bytes is not None and size != file.bytes and not packed_anew:
        raise _altered(
            path, benchmark, f"it has {size} bytes, officially {file.bytes} with {' or '.join(file.digests)}"
        )
    kinds = sorted({digest.partition(":")[0] for digest in file.digests} - {"content-sha256"})
    found = {f"{kind}:{_digest(path, kind)}" for kind in kinds}
    if not found & set(file.digests) and packed_anew:
        found.add(f"content-sha256:{_content_sha256(path)}")
    if not found & set(file.digests):
        told = f"it has {' and '.join(sorted(found))}, official is {' or '.join(file.digests)}"
        raise _altered(path, benchmark, told)


def _altered(path: Path, benchmark: Benchmark, found: str) -> IntegrityError:
    return IntegrityError(
        f"ingest {benchmark.title}: read {path}", found, f"it is damaged or another version: {benchmark.obtain}"
    )


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def _content_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with gzip.open(path) as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except (OSError, EOFError, zlib.error):
        return "(no gzip file)"
    return digest.hexdigest()
