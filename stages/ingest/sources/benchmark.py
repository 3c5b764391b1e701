"""A named downstream data set, an entry of the registry: `benchmark_files.py` checks, lists and reads it. No torch."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import field_validator

from vitpipe.stages.ingest.sources.source_settings import LOOK_SECONDS, SourceCount, SourceSettings, Splits
from vitpipe.stages.settings import Place

if TYPE_CHECKING:  # as in `source_settings.py`
    from vitpipe.stages.ingest.sources.benchmark_files import BenchmarkFiles
    from vitpipe.stages.ingest.sources.inventory import FilesNow, Inventory


PNG = frozenset({"idx", "cifar", "svhn", "smallnorb", "dsprites", "patch_camelyon", "uc_merced", "clevr", "kitti"})
"""Readers of the registry whose images are PNG, by their makers or made here; all others' are JPEG."""


class BenchmarkSource(SourceSettings):
    """A named downstream data set from its official files, with its official splits."""

    ingest_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"splits": "official", "deduplicate": {"exact": False}}
    )

    kind: Literal["benchmark"]
    name: str
    """One of those of `stages/ingest/benchmarks/registry.py`; a wrong name lists them."""
    root: Annotated[str, Place()]
    """Local folder of the official files, unpacked. Not part of the recipe: their digests are checked."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        from vitpipe.stages.ingest.benchmarks.registry import REGISTRY  # all entries: read where one is named

        if name not in REGISTRY:
            near = difflib.get_close_matches(name, REGISTRY, n=1)
            hint = f", the nearest is {near[0]!r}" if near else ""
            raise ValueError(f"unknown benchmark {name!r}{hint}; known: {', '.join(sorted(REGISTRY))}")
        return name

    @property
    def location(self) -> str:
        """The root."""
        return self.root

    @property
    def makes_bytes(self) -> bool:
        """True: images that come inside arrays become PNG here."""
        return True

    def check_splits(self, splits: Splits) -> None:
        """Its own splits and no others."""
        if splits != "official":
            super().check_splits("official")

    def open(self, splits: Splits) -> "BenchmarkFiles":
        """The official files below the root."""
        from vitpipe.stages.ingest.sources.benchmark_files import BenchmarkFiles

        return BenchmarkFiles(self.name, self.root)

    def count(self, splits: Splits) -> SourceCount:
        """What its entry says."""
        from vitpipe.stages.ingest.benchmarks.registry import REGISTRY  # as above

        entry = REGISTRY[self.name]
        names = None if all(name.isdecimal() for name in entry.classes) else entry.classes
        images, each_bytes = sum(entry.splits.values()), float(entry.image_bytes)
        form = {"png" if entry.reader in PNG else "jpeg": 1.0}
        return SourceCount(images, each_bytes, LOOK_SECONDS, entry.num_classes, names, entry.splits, formats=form)

    def is_there(self) -> bool:
        """Whether there is such a folder."""
        return Path(self.root).is_dir()

    def text_digests(self) -> dict[str, str]:
        """None: what its files mean, its entry says."""
        return {}

    def files_now(self, was: "Inventory") -> "FilesNow":
        """The files that it was made of, and lists that fix a split since."""
        from vitpipe.stages.ingest.sources.inventory import FilesNow, Inventory, with_unreadable

        files, unreadable = self.open("official"), dict[str, str]()
        names = {name for name, _, _ in was} | set(files.split_lists())
        now = Inventory.of(with_unreadable(files.stated(names, unreadable), unreadable, was))
        return FilesNow(now, unreadable=unreadable)
