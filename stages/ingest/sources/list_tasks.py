"""Listing a source of many files: one task each, joined in order. Knows no format."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from vitpipe.stages.contract import StageContext
from vitpipe.stages.ingest.listing import Listing, Source
from vitpipe.stages.ingest.sources.class_names import Classes, PartListing
from vitpipe.stages.ingest.sources.patterns import Part


@runtime_checkable
class PartedSource(Protocol):
    """A source whose files must be opened to be listed."""

    @property
    def files(self) -> tuple[Part, ...]: ...

    def known_classes(self) -> Classes | None:
        """Those that are known before rows and samples are read. UsageError as `joined`."""

    def list_part(self, part: Part) -> PartListing:
        """What one file holds: names, places, sizes and labels, no bytes of images."""

    def joined(self, parts: Sequence[PartListing]) -> Listing:
        """The whole listing. UsageError when there is nothing to ingest."""


@dataclass(frozen=True)
class ListTask:
    """One file to list."""

    source: PartedSource
    part: Part


def list_source(source: Source, ctx: StageContext) -> Listing:
    """All images of a source, its files opened by as many tasks as there are."""
    if not isinstance(source, PartedSource):
        return source.listing()
    tasks = [ListTask(source, part) for part in source.files]
    found: dict[int, PartListing] = {}
    lists: dict[tuple[str, ...], tuple[str, ...]] = {}  # class names, once for the thousand files that repeat them
    for done in ctx.cluster.fan(_list, tasks, resources=ctx.resources, label=lambda task: f"list-{task.part.number}"):
        part = done.value()
        found[done.item.part.number] = replace(part, names=lists.setdefault(part.names, part.names))
    return source.joined([found[part.number] for part in source.files])


def _list(task: ListTask) -> PartListing:
    return task.source.list_part(task.part)
