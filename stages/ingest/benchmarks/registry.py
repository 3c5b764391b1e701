"""The data sets that can be ingested by name, read from `official/*.json`: official files, splits, label rules, origin.

`source` says on whose word digests and sizes stand; `unverified` what nobody could vouch for. No torch, no reading.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitpipe.stages.images.wordnet import imagenet_ids

WORDNET = "wordnet"
"""Stands in an entry for ImageNet's thousand ids."""


@dataclass(frozen=True)
class OfficialFile:
    """One file as its authors publish it, by its place below the root or, of an archive, by its name."""

    path: str
    digests: tuple[str, ...] = ()
    """Any of them: `md5:...` or `sha256:...` of the file, or `content-sha256:...` of what a .gz holds. None where
    nobody publishes one: there the counts decide."""
    bytes: int | None = None
    """Size of the file that has these digests, where it is published."""


@dataclass(frozen=True)
class SplitSlice:
    """Examples `start` to `stop` of an official split, in the order of TensorFlow Datasets."""

    split: str
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True, eq=False)
class Benchmark:
    """One data set, or one task on it. Equal to itself alone: readers keep what they opened by it."""

    name: str
    title: str
    """As in the paper's tables."""
    group: str
    """paper, vtab, fewshot, or small."""
    reader: str
    """Which official format it has: a name of `benchmark_files.READERS`."""
    images: Mapping[str, int]
    """Images of each official split."""
    num_classes: int
    image_bytes: int
    """Bytes of one image, about: what a plan reckons with."""
    licence: str
    """To our knowledge: `home` has the terms that count."""
    home: str
    obtain: str
    """What to do to have the files below the root."""
    files: tuple[OfficialFile, ...] = ()
    """What must stand below the root, apart from images."""
    archives: tuple[OfficialFile, ...] = ()
    """What is downloaded and unpacked: not needed afterwards, and not looked at."""
    classes: tuple[str, ...] = ()
    """Their names, where the files do not say."""
    task: str = ""
    """Which label rule of its reader makes the classes, where there are several."""
    parts: Mapping[str, tuple[SplitSlice, ...]] = field(default_factory=dict)
    """The splits that are made of the official ones; empty where those are taken as they are."""
    metric: str = "top1"
    source: str = ""
    unverified: str = ""

    @property
    def how_to_obtain(self) -> str:
        """What to do, and the digests of what is downloaded."""
        digests = [f"{archive.path} {archive.digests[0]}" for archive in self.archives if archive.digests]
        return f"{self.obtain} ({', '.join(digests)})" if digests else self.obtain

    @property
    def class_names(self) -> tuple[str, ...]:
        """`classes`, or their numbers where nobody names them."""
        return self.classes or tuple(map(str, range(self.num_classes)))

    @property
    def splits(self) -> dict[str, int]:
        """Images of each split of the shards."""
        if not self.parts:
            return dict(self.images)
        return {name: sum(self._length(piece) for piece in pieces) for name, pieces in self.parts.items()}

    def _length(self, piece: SplitSlice) -> int:
        return (self.images[piece.split] if piece.stop is None else piece.stop) - piece.start


def load_registry(folder: Path) -> dict[str, Benchmark]:
    """All entries by name. An entry `of` another has that one's fields where it has none; abstract ones only lend."""
    raw: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        for one in json.loads(path.read_text(encoding="utf-8")):
            assert one["name"] not in raw, f"two benchmarks of one name: {one['name']}"
            raw[one["name"]] = one
    lent = {name: raw[own["of"]] if "of" in own else {} for name, own in raw.items()}
    return {name: _made(**lent[name] | own) for name, own in raw.items() if not own.get("abstract")}


def _made(of: str = "", abstract: bool = False, **fields: Any) -> Benchmark:
    for listed in ("files", "archives"):
        fields[listed] = tuple(_file(*one) for one in fields.get(listed, ()))
    parts = fields.get("parts", {}).items()
    fields["parts"] = {split: tuple(SplitSlice(*piece) for piece in pieces) for split, pieces in parts}
    classes = fields.get("classes", ())
    return Benchmark(**fields | {"classes": imagenet_ids() if classes == WORDNET else tuple(classes)})


def _file(path: str, size: int | None = None, *digests: str) -> OfficialFile:
    return OfficialFile(path, digests, size)


REGISTRY: dict[str, Benchmark] = load_registry(Path(__file__).with_name("official"))
