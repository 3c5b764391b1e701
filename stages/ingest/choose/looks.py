"""How many images look, in few bytes each: columns in the order in which the first of two alike is kept. No torch."""

from array import array
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from vitpipe.stages.ingest.choose.crowd import Words
from vitpipe.stages.ingest.choose.duplicate import keep_order
from vitpipe.stages.ingest.choose.hamming import Places
from vitpipe.stages.ingest.look.image import Image
from vitpipe.stages.ingest.look.likeness import LIKENESS_BYTES
from vitpipe.stages.ingest.table import Texts

View = tuple[Places, Words]
"""Rows that have one view of an image, and how it looks: (N, 4), the first look and the three words of the second."""


class LooksOf:
    """Places: first the `given` looks, then the images that look like anything, in `duplicate.keep_order`."""

    def __init__(self, images: Iterable[Image], given: Sequence[bytes]) -> None:
        self._names, self._labels = Texts(), list[tuple[int, ...]]()
        self._given, once = len(given), dict[tuple[int, ...], tuple[int, ...]]()
        trains, data, views = bytearray(), bytearray(b"".join(given)), array("B", [1] * len(given))
        for image in images:
            if image.seen.likeness is not None:
                is_train, name = keep_order(image)
                trains.append(is_train)
                self._names.append(name)
                self._labels.append(once.setdefault(image.item.labels, image.item.labels))
                data += image.seen.likeness
                views.append(len(image.seen.likeness) // LIKENESS_BYTES)
        order = sorted(range(len(trains)), key=lambda row: (trains[row], self._names[row]))
        self._rows = np.array(order, dtype=np.int64)
        self._words = np.frombuffer(data, dtype=">u8").astype(np.uint64).reshape(-1, LIKENESS_BYTES // 8)
        places = np.concatenate([np.arange(len(given)), len(given) + self._rows])
        self._views = np.array(views, dtype=np.int64)[places]
        ends = np.cumsum(np.array(views, dtype=np.int64))
        self._starts = ends[places] - self._views

    def image(self, place: int) -> tuple[str, tuple[int, ...]]:
        """Name and labels of a place behind the given ones."""
        row = int(self._rows[place - self._given])
        return self._names[row], self._labels[row]

    def distinct(self) -> tuple[Places, Places]:
        """The places at which a look of the whole image comes first, ascending; and of each place which of them."""
        whole = np.ascontiguousarray(self._words[self._starts]).view([("", np.uint64)] * (LIKENESS_BYTES // 8)).ravel()
        _, first, which = np.unique(whole, return_index=True, return_inverse=True)
        return np.sort(first), first[which]

    def views(self, own: Places) -> list[View]:
        """Each view with the rows of `own` that have it, whole first."""
        counts, starts = self._views[own], self._starts[own]
        found: list[View] = []
        for view in range(max(1, counts.max(initial=1))):
            rows: npt.NDArray[np.int64] = np.flatnonzero(counts > view)
            found.append((rows, self._words[starts[rows] + view]))
        return found
