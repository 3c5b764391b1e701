"""A source of tiny images that a test planted: at hand, given away one by one, or in files that tasks list."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, NamedTuple

from PIL import Image as Picture

from vitpipe.stages.images.image_digests import digest_images
from vitpipe.stages.ingest.listing import FileDamage, Item, Items, Listing
from vitpipe.stages.ingest.sources.class_names import FileListing, Labelled, labels_apart
from vitpipe.stages.ingest.sources.inventory import Inventory
from vitpipe.stages.ingest.sources.opened import SourceOfFiles
from vitpipe.stages.ingest.sources.packaged import PackagedSource
from vitpipe.stages.ingest.sources.patterns import SourceFile
from vitpipe.stages.ingest.sources.vocabulary import joined

FILE_ROWS = 4
CLASSES = ("c0", "c1", "c2")


class Planted(NamedTuple):
    """One image: `content` says its pixels, `form` its bytes; a form of None is no image."""

    name: str
    content: int
    form: int | None
    label: int
    split: str | None = None
    fault: str = ""


@cache
def data_of(content: int, form: int | None) -> bytes:
    """Equal contents decode alike, whatever the form."""
    if form is None:
        return b"no image %d" % content
    file = io.BytesIO()
    noise = hashlib.sha256(b"%d" % content).digest() * 6
    Picture.frombytes("RGB", (8, 8), noise).save(file, "PNG", compress_level=form)
    return file.getvalue()


@cache
def content_of(number: int) -> str:
    """The digest of its pixels."""
    (found,) = digest_images([data_of(number, 0)])
    return found.pixels_sha256


@dataclass(frozen=True)
class AtHand:
    """Satisfies `opened.Source`."""

    images: tuple[Planted, ...]
    findings: tuple[FileDamage, ...] = ()

    costly: ClassVar[bool] = False

    def listing(self) -> Listing:
        rows = (
            Item(one.name, (one.label,), one.split, len(data_of(one.content, one.form)), (0, row), one.fault)
            for row, one in enumerate(self.images)
        )
        return Listing(Items(rows).by_name(), CLASSES, findings=self.findings)

    def inventory(self, listing: Listing) -> Inventory:
        return Inventory.of((item.name, item.size, item.mark) for item in listing.items)

    def read(self, item: Item) -> bytes:
        one = self.images[item.place[0] * FILE_ROWS + item.place[1]]
        return data_of(one.content, one.form)

    def reads(self, items: Sequence[Item]) -> Any:
        return map(self.read, items)


@dataclass(frozen=True)
class Streamed(AtHand):
    """Satisfies `opened.StreamedSource`; in an order of its own, labels numbered the other way round."""

    def stream(self, images: Any) -> Listing:
        whole = self.listing()
        for item in reversed(list(whole.items)):
            images.append(item._replace(labels=tuple(2 - label for label in item.labels)))
        images.relabel((2, 1, 0))
        return replace(whole, items=Items())


@dataclass(frozen=True)
class InFiles(SourceOfFiles):
    """Files of a few images each; names may stand in several."""

    images: tuple[Planted, ...] = ()
    findings: tuple[FileDamage, ...] = ()

    costly: ClassVar[bool] = False
    read, reads = AtHand.read, AtHand.reads

    def known_classes(self) -> None:
        return None

    def inventory(self, listing: Listing) -> Inventory:
        return Inventory.of(())

    def list_file(self, file: SourceFile) -> Any:
        rows = self.images[file.number * FILE_ROWS : (file.number + 1) * FILE_ROWS]
        items, labels = labels_apart(
            Labelled(one.name, (f"c{one.label}",), 7, (file.number, row), one.fault) for row, one in enumerate(rows)
        )
        return items, FileListing(len(items), labels, file=file.name)

    def joined(self, parts: Sequence[FileListing]) -> Any:
        found = joined(parts, None)
        return replace(found, listing=replace(found.listing, findings=self.findings), may_repeat=True)


def in_files(images: tuple[Planted, ...], findings: tuple[FileDamage, ...]) -> InFiles:
    """The images in as many files as they need."""
    count = -(-len(images) // FILE_ROWS)
    files = tuple(SourceFile(number, f"f{number}", "s3://nowhere", f"f{number}", 1) for number in range(count))
    return InFiles(files, None, images, findings)


class PlantedSource(PackagedSource):
    """What the stage is given in the place of a source's settings."""

    kind: str = "planted"
    opened: Any

    def open(self, splits: Any) -> Any:
        return self.opened

    def count(self, splits: Any) -> str:
        return ""

    def text_digests(self) -> dict[str, str]:
        return {}
