"""Where the weights come from, in words that stay with them into other people's hands. No torch."""

from vitpipe.stages.artifacts import Checkpoint, Weights
from vitpipe.stages.convert.foreign.weights import Foreign
from vitpipe.stages.convert.task import Source


def lineage_of(source: Source) -> dict[str, str]:
    """What the source says of itself; converted weights keep what they were told, so copies of copies agree."""
    if isinstance(source, Weights):
        return dict(source.lineage)
    if isinstance(source, Checkpoint):
        told = {"step": str(source.step), "samples seen": str(source.samples_seen)}
        if source.shards_sha256:
            told["pretrained on (SHA-256 of manifests)"] = ", ".join(source.shards_sha256)
        return _named(source) | told
    return _named(source)


def _named(source: Source) -> dict[str, str]:
    """Run and node, without the place they lie at, and the digest of the record that vouches for them."""
    named = {"source": "/".join(source.uri.rstrip("/").split("/")[-2:])}
    if isinstance(source, Foreign):
        return named | {f"SHA-256 of {name}": digest.sha256 for name, digest in source.digests}
    return named | ({"record SHA-256": source.origin.record_sha256} if source.origin else {})
