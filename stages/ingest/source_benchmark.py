"""A named downstream data set from its official files, their digests checked. No torch.

Images that are files stay as they are; those that come inside arrays become PNG, true to the pixel.
"""

import gzip
import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from infra.errors import IntegrityError, UsageError
from stages.images.header import BadImage
from stages.ingest.benchmarks.arrays import ArraySet, read_arrays
from stages.ingest.benchmarks.registry import REGISTRY, Benchmark, OfficialFile
from stages.ingest.benchmarks.trees import read_tree
from stages.ingest.listing import Item, Listing, some
from stages.ingest.reading import one_by_one


@dataclass(frozen=True)
class BenchmarkFiles:
    """Satisfies `listing.Source`. `root` is an absolute local path."""

    name: str
    root: str

    @property
    def costly(self) -> bool:
        return False

    @property
    def benchmark(self) -> Benchmark:
        return REGISTRY[self.name]

    def listing(self) -> Listing:
        """All official splits. UsageError for missing files, IntegrityError for altered ones or another number."""
        self._verify()
        items, classes = self._of_arrays() if self._in_arrays else self._of_files()
        found = dict(Counter(item.split for item in items))
        if found != self.benchmark.images or len(classes) != self.benchmark.num_classes:
            raise IntegrityError(
                f"ingest {self.benchmark.title} from {self.root}",
                f"its files list {found} of {len(classes)} classes, officially they are {self.benchmark.images} of "
                f"{self.benchmark.num_classes}",
                self.benchmark.obtain,
            )
        licence = f"{self.benchmark.title}: licence {self.benchmark.licence}"
        return Listing(tuple(sorted(items, key=lambda item: item.name)), classes, notes=(licence,))

    def reads(self, items: Sequence[Item]) -> Iterator[bytes | BadImage]:
        return one_by_one(self.read, items)

    def read(self, item: Item) -> bytes:
        if not self._in_arrays:
            try:
                return Path(self.root, item.name).read_bytes()
            except OSError as error:
                raise BadImage(f"it cannot be read: {error.strerror}") from error
        split, _, number = item.name.partition("/")
        file = io.BytesIO()
        Image.fromarray(_arrays(self.name, self.root).splits[split].images[int(number)]).save(file, "PNG")
        return file.getvalue()

    @property
    def _in_arrays(self) -> bool:
        return self.benchmark.reader in ("idx", "cifar", "svhn")

    def _verify(self) -> None:
        missing = [file.path for file in self.benchmark.files if not Path(self.root, file.path).is_file()]
        if missing:
            raise UsageError(f"ingest {self.benchmark.title} from {self.root}",
                             f"{len(missing)} of {len(self.benchmark.files)} official files are missing: "
                             f"{some(missing)}", self.benchmark.obtain)  # fmt: skip
        for file in self.benchmark.files:
            _check(Path(self.root, file.path), file, self.benchmark)

    def _of_arrays(self) -> tuple[list[Item], tuple[str, ...]]:
        arrays = _arrays(self.name, self.root)
        items = [
            Item(f"{split}/{number:06d}", (label,), split)
            for split, held in arrays.splits.items()
            for number, label in enumerate(held.labels.tolist())
        ]
        return items, arrays.classes

    def _of_files(self) -> tuple[list[Item], tuple[str, ...]]:
        listed, classes = read_tree(self.benchmark, Path(self.root))
        missing = [path for path, _, _ in listed if not Path(self.root, path).is_file()]
        if missing:
            raise UsageError(f"ingest {self.benchmark.title} from {self.root}",
                             f"{len(missing)} of {len(listed)} listed images are missing: {some(missing)}",
                             self.benchmark.obtain)  # fmt: skip
        items = [Item(path, (label,), split, Path(self.root, path).stat().st_size) for path, split, label in listed]
        return items, classes


@lru_cache(maxsize=2)
def _arrays(name: str, root: str) -> ArraySet:
    return read_arrays(REGISTRY[name], Path(root))


def _check(path: Path, file: OfficialFile, benchmark: Benchmark) -> None:
    """IntegrityError unless the file has one of its official digests, where there are any."""
    if not file.digests:
        return
    data = path.read_bytes()
    found = [f"md5:{hashlib.md5(data, usedforsecurity=False).hexdigest()}"]
    if found[0] not in file.digests and any(digest.startswith("content-") for digest in file.digests):
        found.append(f"content-sha256:{_content_sha256(data)}")
    if not set(found) & set(file.digests):
        raise IntegrityError(
            f"ingest {benchmark.title}: read {path}",
            f"it has {' and '.join(found)}, official is {' or '.join(file.digests)}",
            f"it is damaged or another version: {benchmark.obtain}",
        )


def _content_sha256(data: bytes) -> str:
    try:
        return hashlib.sha256(gzip.decompress(data)).hexdigest()
    except (OSError, EOFError):
        return "(no gzip file)"
