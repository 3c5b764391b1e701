"""Where numbers come from: the records behind the scores, followed upstream to the raw data.

Knows records and nothing of any stage.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from vitpipe.infra.errors import NotFound
from vitpipe.stages.artifacts import Artifact, Origin
from vitpipe.stages.record import InputRef, Record, read_record


@dataclass(frozen=True)
class Link:
    """One node of the lineage, as it was when it was used."""

    uri: str
    record: Record | None
    """None when it is not there any more."""
    record_sha256: str
    """Of the record as it was used."""
    replaced: bool
    """The record that stands there now is another one."""

    @property
    def name(self) -> str:
        return self.record.node if self.record else self.uri.rsplit("/", 1)[-1]

    @property
    def sources(self) -> list[str]:
        """Names of the nodes it was made from."""
        inputs = self.record.inputs.values() if self.record else ()
        return [ref.uri.rsplit("/", 1)[-1] for refs in inputs for ref in refs]

    @property
    def planned_seconds(self) -> float | None:
        """What the plan had said it would take."""
        hours = self.record.estimate.get("hours") if self.record else None
        return None if hours is None else 3600 * float(hours)

    @property
    def num_bytes(self) -> int:
        return sum(file.bytes for file in self.record.files) if self.record else 0

    def artifact(self) -> Artifact | None:
        """What the node left, if its record is still the one that was used."""
        return self.record.artifact(self.uri, self.record_sha256) if self.record and not self.replaced else None


def benchmarks(links: Iterable[Link]) -> dict[str, str]:
    """By a score's URI: the named benchmark that its data was ingested as, whatever its node is called."""
    links = list(links)
    named = {}
    for link in links:
        source = link.record.config.get("source") if link.record else None
        if isinstance(source, dict) and source.get("kind") == "benchmark":
            named[link.record_sha256] = str(source["name"])
    scored = [(link.uri, ref) for link in links if link.record for ref in link.record.inputs.get("data", ())]
    return {uri: named[ref.record_sha256] for uri, ref in scored if ref.record_sha256 in named}


def walk(artifacts: Iterable[Artifact]) -> list[Link]:
    """All nodes behind the artifacts, each once, what was needed before who needed it."""
    found: dict[tuple[str, str], Link] = {}
    for artifact in artifacts:
        if artifact.origin is not None:
            _visit(artifact.origin, found)
    return list(found.values())


def _visit(used: InputRef | Origin, found: dict[tuple[str, str], Link]) -> None:
    key = (used.uri, used.record_sha256)
    if key in found:
        return
    try:
        record, sha256 = read_record(used.uri)
    except NotFound:
        found[key] = Link(used.uri, None, used.record_sha256, replaced=False)
        return
    for refs in record.inputs.values():
        for ref in refs:
            _visit(ref, found)
    found[key] = Link(used.uri, record, used.record_sha256, replaced=sha256 != used.record_sha256)
