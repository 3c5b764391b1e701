"""Where numbers come from: the records that scores rest on, followed upstream to the raw data. Knows no stage."""

from collections.abc import Iterable
from dataclasses import dataclass

from vitpipe.infra.errors import NotFound
from vitpipe.stages.artifacts import Artifact, Origin, ShardSet
from vitpipe.stages.record import Record, read_record
from vitpipe.stages.report.wording import last_part


@dataclass(frozen=True)
class LineageNode:
    """One node upstream, as it was when it was used."""

    uri: str
    record: Record | None
    """None when it is not there any more."""
    record_sha256: str
    """Digest of the record as it was used."""
    replaced: bool
    """Whether another record stands there now."""

    @property
    def name(self) -> str:
        """The node's name; siblings in full, where the record is still there."""
        return self.record.node if self.record else last_part(self.uri)

    @property
    def sources(self) -> list[str]:
        """Names of the nodes it was made from."""
        inputs = self.record.inputs.values() if self.record else ()
        return [last_part(ref.uri) for refs in inputs for ref in refs]

    @property
    def planned_seconds(self) -> float | None:
        """What the plan had said it would take."""
        hours = self.record.estimate.get("hours") if self.record else None
        return None if hours is None else 3600 * float(hours)

    @property
    def num_bytes(self) -> int:
        """Bytes of all files the record lists."""
        return sum(file.bytes for file in self.record.files) if self.record else 0

    def artifact(self) -> Artifact | None:
        """The node's artifact, if its record is still the one that was used."""
        return self.record.artifact(self.uri, self.record_sha256) if self.record and not self.replaced else None


def benchmarks(lineage: Iterable[LineageNode]) -> dict[str, str]:
    """Map a score's URI to the named benchmark that its data was ingested as, whatever its node is called."""
    lineage = list(lineage)
    named = {}
    for node in lineage:
        source = node.record.config.get("source") if node.record else None
        if isinstance(source, dict) and source.get("kind") == "benchmark":
            named[node.record_sha256] = str(source["name"])
    scored = [(node.uri, ref) for node in lineage if node.record for ref in node.record.inputs.get("data", ())]
    return {uri: named[ref.record_sha256] for uri, ref in scored if ref.record_sha256 in named}


def rests_on(record_sha256: str, lineage: Iterable[LineageNode]) -> list[LineageNode]:
    """List the node of that record and all upstream of it, in the order of the lineage."""
    listed = list(lineage)
    wanted = {record_sha256}
    for node in reversed(listed):  # each stands after those it was made from
        if node.record_sha256 in wanted and node.record:
            wanted |= {ref.record_sha256 for refs in node.record.inputs.values() for ref in refs}
    return [node for node in listed if node.record_sha256 in wanted]


def data_of(lineage: Iterable[LineageNode]) -> dict[str, ShardSet]:
    """Map a score's URI to the one data set that it was measured on, where that is still there."""
    lineage = list(lineage)
    by_digest = {node.record_sha256: node for node in lineage}
    found = {}
    for node in lineage:
        used = node.record.inputs.get("data", ()) if node.record else ()
        made = [by_digest[ref.record_sha256].artifact() for ref in used if ref.record_sha256 in by_digest]
        if len(made) == 1 and isinstance(made[0], ShardSet):
            found[node.uri] = made[0]
    return found


def walk(artifacts: Iterable[Artifact]) -> list[LineageNode]:
    """List all nodes upstream of the artifacts, each once, and each after those it was made from."""
    found: dict[tuple[str, str], LineageNode] = {}
    for artifact in artifacts:
        if artifact.origin is not None:
            _visit(artifact.origin, found)
    return list(found.values())


def _visit(used: Origin, found: dict[tuple[str, str], LineageNode]) -> None:
    key = (used.uri, used.record_sha256)
    if key in found:
        return
    try:
        record, sha256 = read_record(used.uri)
    except NotFound:
        found[key] = LineageNode(used.uri, None, used.record_sha256, replaced=False)
        return
    for refs in record.inputs.values():
        for ref in refs:
            _visit(ref, found)
    found[key] = LineageNode(used.uri, record, used.record_sha256, replaced=sha256 != used.record_sha256)
