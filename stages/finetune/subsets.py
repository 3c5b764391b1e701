"""Which training images a trial sees: `train_per_class` and the dev split, as pure functions of labels and seed.

Every image of the split gets one random number; each class then takes its lowest. So subsets of several sizes are
nested, and two nodes with the same data and seed train on the same images whatever else differs.
"""

import numpy as np
import numpy.typing as npt

from vitpipe.infra.errors import StageError
from vitpipe.stages.training.seeds import key

Indices = npt.NDArray[np.int64]


def training_subset(labels_N: Indices, data_sha256: str, seed: int, per_class: int) -> Indices:
    """Draw `per_class` images of each class, all of one that has fewer; their indices in the split, ascending."""
    draws_N = _draws(len(labels_N), "train_per_class", data_sha256, seed)
    return _lowest(labels_N, np.arange(len(labels_N)), draws_N, np.full(int(labels_N.max()) + 1, per_class))


def dev_split(labels_N: Indices, kept: Indices, data_sha256: str, dev: float) -> tuple[Indices, Indices]:
    """Cut the `kept` images into those to train on and those held out, classes in their shares; both ascending.

    `dev` below 1 is a fraction, else a number of images. The same cut for every rate and seed of a sweep.
    StageError when nothing would be held out, or a class would lose all its images.
    """
    counts = np.bincount(labels_N[kept], minlength=int(labels_N.max()) + 1)
    wanted = round(dev * len(kept)) if dev < 1 else int(dev)
    per_class = _shares(counts, wanted)
    if wanted == 0 or per_class.sum() < wanted:
        asked = f"hold {f'{dev:g} of' if dev < 1 else wanted} {len(kept)} training images out as the dev split"
        found = f"that is {wanted} images, and {int(per_class.sum())} can go while each class keeps one to train on"
        raise StageError(asked, found, "change `dev`, or give one peak_lr, which needs no dev split")
    held = _lowest(labels_N, kept, _draws(len(labels_N), "dev", data_sha256), per_class)
    return np.setdiff1d(kept, held), held


def _draws(num_images: int, *parts: str | int) -> npt.NDArray[np.uint64]:
    """One number an image. Raw Philox output, because numpy keeps that stable across versions."""
    return np.asarray(np.random.Philox(key=key(*parts)).random_raw(num_images))


def _lowest(labels_N: Indices, among: Indices, draws_N: npt.NDArray[np.uint64], per_class: Indices) -> Indices:
    """The `per_class[class]` images of each class that have the lowest draws; ties go to the lower index."""
    ordered = among[np.argsort(draws_N[among], kind="stable")]
    grouped = ordered[np.argsort(labels_N[ordered], kind="stable")]
    labels = labels_N[grouped]
    place_in_class = np.arange(len(grouped)) - np.searchsorted(labels, labels)
    return np.asarray(np.sort(grouped[place_in_class < per_class[labels]]), dtype=np.int64)


def _shares(counts: Indices, wanted: int) -> Indices:
    """Split `wanted` over classes in proportion, largest remainders first, at most all but one image of a class."""
    room = np.maximum(counts - 1, 0)
    exact = wanted * counts / max(1, counts.sum())
    shares = np.minimum(np.floor(exact).astype(np.int64), room)
    order = np.argsort(-(exact - np.floor(exact)), kind="stable")
    while (missing := wanted - int(shares.sum())) > 0 and (free := order[shares[order] < room[order]]).size:
        shares[free[:missing]] += 1
    return np.asarray(shares, dtype=np.int64)
