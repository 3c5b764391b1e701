"""What every kind of source declares: settings, listing, count, and what lies there now. One file each stands beside.

Read by `validate`: whoever lists, counts or looks imports what that needs in the function that does it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from vitpipe.infra.errors import UsageError
from vitpipe.stages.bounds import AnySeed, Images
from vitpipe.stages.settings import Settings

if TYPE_CHECKING:  # numpy, which the listing of a source stands on, would double the time of `validate`
    from vitpipe.stages.contract import StageContext
    from vitpipe.stages.ingest.listing import Listing
    from vitpipe.stages.ingest.sources.inventory import FilesNow, Inventory
    from vitpipe.stages.ingest.sources.opened import Source

LOOK_SECONDS = 0.004
"""One core's time to read, decode and write a photo of 100 KB."""
UNLABELLED = "none"
"""What `labels` says of a source whose images have no classes."""
Splits = Mapping[str, float] | Literal["folders", "official"]
"""How the config cuts a source into splits."""


class Subset(Settings):
    """A random part of the source, the same one for the same seed."""

    fraction: float = Field(gt=0, le=1)
    """Share of the images to keep; larger fractions contain smaller ones."""
    seed: AnySeed = 0
    """Which part."""


@dataclass(frozen=True)
class SourceCount:
    """What a plan reckons with before anything is ingested."""

    images: int
    image_bytes: float
    """Bytes of one image, on average."""
    image_seconds: float = LOOK_SECONDS
    """One core's time for one image."""
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    splits: Mapping[str, int] = field(default_factory=dict)
    """Images of each split that the source itself names."""
    notes: tuple[str, ...] = ()
    formats: Mapping[str, float] = field(default_factory=lambda: {"jpeg": 1.0})
    """How many are `jpeg`, `png` and `webp`, or which part, as far as names say it."""


def suffix_of(name: str) -> str:
    """Take a name's suffix, in lower case and without its dot."""
    return name.rpartition(".")[2].lower()


def formats_by(suffixes: Mapping[str, int]) -> dict[str, float]:
    """Count names by the format that they end with; those that say none are taken for JPEGs."""
    known = {name: float(suffixes.get(name, 0)) for name in ("png", "webp")}
    return {"jpeg": sum(suffixes.values()) - sum(known.values()), **known}


class SourceSettings(Settings, ABC):
    """One kind of source. A subclass declares a field `kind` and each abstract part; `kinds.py` names it."""

    model_config = ConfigDict(defer_build=True)  # within a config's own; by itself a source is hardly ever read
    if TYPE_CHECKING:
        kind: str
    ingest_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Fields of the ingest that have another default where this kind is taken."""
    is_installed: ClassVar[bool] = False
    """Whether it comes with an installed package rather than from files of the user."""

    limit: Images | None = None
    """Keep at most this many images, drawn by hash from the whole source; smaller limits lie inside larger ones."""
    subset: Subset | None = None
    """Keep a random share of the images."""

    @property
    def unlabelled(self) -> bool:
        """Whether the config says that no image has a class."""
        return getattr(self, "labels", None) == UNLABELLED

    @property
    @abstractmethod
    def location(self) -> str:
        """Where it lies, for messages."""

    @property
    @abstractmethod
    def makes_bytes(self) -> bool:
        """Whether the bytes of its images are made by Pillow here, and may be others with another version of it."""

    @abstractmethod
    def open(self, splits: Splits) -> "Source":
        """The source, ready to be listed and read. UsageError when it cannot be there."""

    def make_ready(self, splits: Splits, ctx: "StageContext") -> "Source":
        """As `open`, for whoever ingests: what can be read only once is brought to where it can be read again."""
        return self.open(splits)

    @abstractmethod
    def count(self, splits: Splits) -> SourceCount | str:
        """What can be counted without reading all of it, or words on when it is. UsageError for nothing to ingest."""

    @abstractmethod
    def is_there(self) -> bool:
        """Whether anything of it is in reach. UsageError or StorageError may say why not."""

    @abstractmethod
    def text_digests(self) -> dict[str, str]:
        """SHA-256 by name of the small files that say what the others mean: labels, class names, fonts.

        UsageError for one that is gone, StorageError for one that cannot be read.
        """

    @abstractmethod
    def files_now(self, was: "Inventory") -> "FilesNow":
        """The files of which it would be made now. UsageError, StorageError and OSError where they are out of reach."""

    def list_unopened(self, splits: Splits) -> "Listing | None":
        """The listing as it would be now, where names and sizes give it; None where files have to be opened for it."""
        return None

    def whole_digests(self) -> Mapping[str, str]:
        """SHA-256 of its files by name, where they are compared whole rather than image by image."""
        return {}

    def check_splits(self, splits: Splits) -> None:
        """ValueError in words where the source cannot be cut so. Only a source that names splits knows them by word."""
        if splits == "official":
            raise ValueError(f"splits: official belongs to a benchmark and to nothing else; the source is {self.kind}")
        if splits == "folders":
            raise ValueError(f"splits: folders needs a folder source, not {self.kind}")

    def part(self, listing: "Listing") -> "Listing":
        """The images of a listing that `subset`, then `limit` keep, both by hash of the name: nested and stable."""
        from vitpipe.stages.ingest.draw import unit_hash

        items, rows = listing.items.by_name(), range(len(listing.items))
        kept: Sequence[int] = rows
        if self.subset is not None:
            share, seed = self.subset.fraction, self.subset.seed
            kept = [row for row in rows if unit_hash("subset", seed, items.name(row)) < share]
        if self.limit is not None:
            seed = self.subset.seed if self.subset else 0
            kept = sorted(sorted(kept, key=lambda row: (unit_hash("limit", seed, items.name(row)), row))[: self.limit])
        return replace(listing, items=items if kept is rows else items.take(kept))

    def nothing_there(self) -> UsageError:
        """The error of a source of which no file is left."""
        return UsageError(f"look at {self.location}", "nothing of it is there, or on this machine")
