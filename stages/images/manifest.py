"""The content of a ShardSet's `manifest.json`: classes, and the shards in order. No torch."""

import hashlib
import json
from collections import Counter

from pydantic import Field

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.stages.artifacts import Artifact, Frozen, ShardSet
from vitpipe.stages.estimates import Estimate
from vitpipe.stages.images.classes import names_of
from vitpipe.stages.images.index import ShardIndex, parse_index

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = 1


class ShardEntry(Frozen):
    """One tar, and `index`, the name of its index."""

    path: str
    split: str
    count: int
    bytes: int
    sha256: str
    pixels: int
    """Pixels of all its images together; kept decoded, they would take three bytes each."""

    @property
    def index(self) -> str:
        """Name of the index inside the artifact."""
        return index_path(self.path)


class SourceFacts(Frozen):
    """Where the images came from."""

    kind: str
    listing_sha256: str
    """Digest of the source's listing (names, sizes, labels): tells whether a folder that moved is still the same."""
    listed: int
    quarantined: int
    duplicates: int
    restart_intervals: bool = False
    """Whether JPEGs were written anew with restart markers: other bytes than the source's, equal pixels."""
    reencoded: int = 0
    """Images whose bytes are not the source's, because the config asked for others."""


_LATER = ("reencoded", "restart_intervals")
"""Fields that are left out while they have their default."""


class Manifest(Frozen):
    """The identity of the data: its digest is part of every sample's order."""

    schema_: int = Field(default=MANIFEST_SCHEMA, alias="schema")
    classes: tuple[str, ...]
    """Names of the classes; a label is a place in this list."""
    multi_label: bool
    shards: tuple[ShardEntry, ...]
    """The shards in order; a split's samples are those of its shards, one after another."""
    source: SourceFacts

    def of(self, split: str) -> tuple[ShardEntry, ...]:
        """List the shards of a split. UsageError naming the splits that have images, for one that has none."""
        found = tuple(entry for entry in self.shards if entry.split == split)
        if not sum(entry.count for entry in found):
            sizes = Counter[str]()
            for entry in self.shards:
                sizes[entry.split] += entry.count
            listed = ", ".join(f"{name} ({count} images)" for name, count in sorted(sizes.items())) or "none"
            there = f"it has no images; splits with images: {listed}"
            raise UsageError(f"read the split {split!r}", there, "set `splits` at ingest")
        return found

    def encode(self) -> bytes:
        """Canonical bytes of `manifest.json`."""
        fields = self.model_dump(mode="json", by_alias=True)
        for name in _LATER:  # so that manifests older than the field keep their digest
            if not fields["source"][name]:
                del fields["source"][name]
        return (json.dumps(fields, indent=1) + "\n").encode()


def index_path(shard: str) -> str:
    """Name the index of a shard."""
    return shard.removesuffix(".tar") + ".index"


def load_manifest(shards: ShardSet) -> Manifest:
    """Read the manifest. IntegrityError when its digest is not the artifact's, UsageError for a newer schema."""
    data, asked = shards.read(MANIFEST), f"read {MANIFEST} of {shards.uri}"
    found = hashlib.sha256(data).hexdigest()
    if found != shards.manifest_sha256:
        do = "restore it from a copy, or ingest again under another `name`"
        raise IntegrityError(asked, f"SHA-256 {found}, the artifact says {shards.manifest_sha256}", do)
    fields = json.loads(data)
    if fields.get("schema", 0) > MANIFEST_SCHEMA:
        newer = f"schema {fields['schema']} was written by a newer vitpipe; this one reads up to {MANIFEST_SCHEMA}"
        raise UsageError(asked, newer, "update vitpipe")
    return Manifest.model_validate(fields)


def load_index(shards: ShardSet, entry: ShardEntry) -> ShardIndex:
    """Read the index of one shard, verified. IntegrityError when it is damaged."""
    return parse_index(shards.read(entry.index), f"{entry.index} of {shards.uri}")


def known_names(given: Artifact | Estimate) -> dict[int, str] | None:
    """Find class names by number: of a set's images, or of a model's head. None where they are not known yet."""
    if isinstance(given, ShardSet):
        return dict(enumerate(load_manifest(given).classes))
    if isinstance(given, Artifact):
        return names_of(given)
    return None if given.class_names is None else dict(enumerate(given.class_names))
