"""The sample order of a split: of one set, of a part of it, or of several sets mixed. No torch."""

import hashlib
from collections.abc import Sequence

import numpy as np

from vitpipe.infra.errors import UsageError
from vitpipe.stages.images.keys import Ints
from vitpipe.stages.images.mixture import Mixture
from vitpipe.stages.images.order import Order
from vitpipe.stages.images.split import Split


def order_of(split: Split, keep: Ints | None, seed: int, shares: Sequence[float] = ()) -> Order | Mixture:
    """Make the order of a split, named by manifests, split and subset. UsageError for sets without a share each.

    `keep` has ascending numbers in a single set; `shares` has one share for each of several sets.
    """
    names = [f"{one.manifest_sha256}/{split.split}" for one in split.sets]
    if len(names) == 1:
        return Order(split.counts.tolist(), names[0], seed) if keep is None else _part(split, keep, names[0], seed)
    if keep is not None or len(shares) != len(names):
        asked, found = f"read {len(names)} sets as one sequence", f"{len(shares)} shares were given"
        raise UsageError(asked, found, "give one share for each set, and no `keep`")
    owners = np.array(split.owners)
    orders = [Order(split.counts[owners == place].tolist(), name, seed) for place, name in enumerate(names)]
    return Mixture(orders, shares, "+".join(names), seed)


def _part(split: Split, keep: Ints, name: str, seed: int) -> Order:
    """The order of the images in `keep`, counted shard by shard."""
    kept = np.asarray(keep, dtype=np.int64)
    if not len(kept) or (np.diff(kept) <= 0).any() or kept[0] < 0 or kept[-1] >= split.num_images:
        raise ValueError(f"keep must be ascending numbers below {split.num_images}")
    counts = np.histogram(kept, bins=np.concatenate(([0], split.counts.cumsum())) - 0.5)[0]
    subset = hashlib.sha256(kept.astype("<i8").tobytes()).hexdigest()
    return Order(counts.tolist(), f"{name}/{subset}", seed)
