"""A named downstream data set from its official files, their digests checked. No torch.

Images that are JPEG, PNG or WebP files stay as they are; those that come inside arrays become PNG, true to the pixel.
"""

import errno
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.ingest.benchmarks.array_files import ARRAYS
from vitpipe.stages.ingest.benchmarks.class_trees import CALTECH101, EUROSAT, IMAGENET_V2, RESISC45, UC_MERCED
from vitpipe.stages.ingest.benchmarks.division import Divided, divided, list_path
from vitpipe.stages.ingest.benchmarks.entries import OfficialListing, Reader
from vitpipe.stages.ingest.benchmarks.imagenet import IMAGENET, IMAGENET_REAL
from vitpipe.stages.ingest.benchmarks.listed_trees import BIRDS, CARS, DTD, FLOWERS, PETS, SUN397
from vitpipe.stages.ingest.benchmarks.matrices import DSPRITES, PATCH_CAMELYON, SMALLNORB
from vitpipe.stages.ingest.benchmarks.official_digests import check_digests
from vitpipe.stages.ingest.benchmarks.registry import REGISTRY, Benchmark
from vitpipe.stages.ingest.benchmarks.retinopathy import RETINOPATHY
from vitpipe.stages.ingest.benchmarks.scenes import CLEVR, KITTI
from vitpipe.stages.ingest.benchmarks.tfrecord import DMLAB
from vitpipe.stages.ingest.listing import Item, Items, Listing, some
from vitpipe.stages.ingest.reading import one_by_one
from vitpipe.stages.ingest.sources.inventory import Inventory
from vitpipe.stages.sighting import time_mark

READERS: dict[str, Reader] = {
    "idx": ARRAYS, "cifar": ARRAYS, "svhn": ARRAYS,
    "pets": PETS, "flowers": FLOWERS, "dtd": DTD, "sun397": SUN397, "cars": CARS, "birds": BIRDS,
    "caltech101": CALTECH101, "eurosat": EUROSAT, "resisc45": RESISC45, "uc_merced": UC_MERCED,
    "smallnorb": SMALLNORB, "dsprites": DSPRITES, "patch_camelyon": PATCH_CAMELYON, "dmlab": DMLAB,
    "retinopathy": RETINOPATHY, "clevr": CLEVR, "kitti": KITTI,
    "imagenet": IMAGENET, "imagenet_real": IMAGENET_REAL, "imagenet_v2": IMAGENET_V2,
}  # fmt: skip
"""Every official format by the name that the registry gives it."""


@dataclass(frozen=True)
class BenchmarkFiles:
    """Satisfies `opened.Source`. `root` is an absolute local path."""

    name: str
    root: str

    @property
    def costly(self) -> bool:
        """Whether its reader prepares images."""
        return self._reader.costly

    @property
    def benchmark(self) -> Benchmark:
        """Its entry."""
        return REGISTRY[self.name]

    @property
    def _reader(self) -> Reader:
        return READERS[self.benchmark.reader]

    def listing(self) -> Listing:
        """All splits. UsageError for missing files, IntegrityError for altered ones or another number of images."""
        self._verify()
        listed = self._reader.listed(self.benchmark, Path(self.root))
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

    def inventory(self, listing: Listing) -> Inventory:
        """The official files, the lists that fix a split, and the images or the tars that hold them."""
        names = {file.path for file in self.benchmark.files} | set(self.split_lists())
        if self._reader.files:
            names |= {self._reader.file_of(Path(self.root), item) for item in listing.items}
        elif not names:
            names = {entry.name for entry in os.scandir(self.root) if entry.is_file() and entry.name[0] != "."}
        return Inventory.of(self.stated(names, None))

    def split_lists(self) -> list[str]:
        """Names of the files by which somebody fixed a split."""
        paths = [list_path(self.benchmark, split, Path(self.root)) for split in self.benchmark.parts]
        return [path.name for path in paths if path.is_file()]

    def stated(self, names: Iterable[str], unreadable: dict[str, str] | None) -> Iterator[tuple[str, int, int]]:
        """Name, size and mark of those that are there. What may not be seen goes to `unreadable`, or is raised."""
        for name in names:
            try:
                state = os.stat(Path(self.root, name))
            except PermissionError as error:
                if unreadable is None:
                    raise
                unreadable[f"{name}/"] = str(error.strerror)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise
            else:
                yield name, state.st_size, time_mark(state)

    def reads(self, items: Sequence[Item]) -> Iterator[bytes | BadImage]:
        """One by one."""
        return one_by_one(self.read, items)

    def read(self, item: Item) -> bytes:
        """One image as its reader gives it. BadImage where it cannot be had."""
        return self._reader.read(self.benchmark, Path(self.root), item)

    def _verify(self) -> None:
        if not Path(self.root).is_dir():
            raise UsageError(self._asked, "no such folder", self.benchmark.how_to_obtain)
        missing = [file.path for file in self.benchmark.files if not Path(self.root, file.path).is_file()]
        if missing:
            raise self._missing(f"{len(missing)} of {len(self.benchmark.files)} official files", missing)
        for file in self.benchmark.files:
            check_digests(Path(self.root, file.path), file, self.benchmark)

    def _count(self, listed: OfficialListing) -> None:
        """What the official files list, against what they officially are: another version has other numbers."""
        found, wanted = dict(Counter(entry.split for entry in listed.entries)), dict(self.benchmark.images)
        if found == wanted and len(listed.classes) == self.benchmark.num_classes:
            return
        officially = f"{wanted} of {self.benchmark.num_classes}: {_first_difference(found, wanted)}"
        raise self._other(f"its files list {found} of {len(listed.classes)} classes, officially they are {officially}")

    def _refuse_other_classes(self, listed: OfficialListing) -> None:
        """A list with a class too many, or one name for two: another version of the files than these."""
        classes = range(len(listed.classes))
        strange = next((one for one in listed.entries if any(label not in classes for label in one.labels)), None)
        twice = sorted(name for name, count in Counter(listed.classes).items() if count > 1)
        if strange is not None:
            raise self._other(f"{strange.name!r} has the classes {strange.labels}, numbers end at {len(classes) - 1}")
        if twice:
            raise self._other(f"two of its classes have one name: {some(twice)}")

    def _sizes(self, found: Divided) -> list[int]:
        """Bytes of each image, where they are known. UsageError for images that are listed and not there."""
        if not self._reader.files:
            return [entry.size for entry, _ in found]
        sizes = [entry.size if entry.place else _file_size(Path(self.root, entry.name)) for entry, _ in found]
        missing = [entry.name for (entry, _), size in zip(found, sizes, strict=True) if size is None]
        if missing:
            raise self._missing(f"{len(missing)} of {len(found)} listed images", missing)
        return [size or 0 for size in sizes]

    def _refuse_one_class(self, found: Divided) -> None:
        trains = [entry.labels for entry, split in found if split == "train" or "train" not in self.benchmark.splits]
        if len(set(trains)) < 2:
            raise self._other(f"its {len(trains)} images have one label alone, so there is nothing to tell apart")

    def _missing(self, what: str, names: Sequence[str]) -> UsageError:
        return UsageError(self._asked, f"{what} are missing: {some(names)}", self.benchmark.how_to_obtain)

    def _other(self, found: str) -> IntegrityError:
        """Its files are not the official ones."""
        return IntegrityError(self._asked, found, self.benchmark.obtain)

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
