"""The 1797 handwritten digits bundled with scikit-learn (UCI Optdigits test set), true to the pixel. No torch.

8 x 8 greys of 17 levels become 8-bit grey PNGs of 8 x 8: enlarging is the reader's business.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from vitpipe.stages.images.header import BadImage
from vitpipe.stages.ingest.listing import Item, Items, Listing
from vitpipe.stages.ingest.reading import one_by_one

NUM_DIGITS = 1797
DIGIT_NAMES = tuple(str(digit) for digit in range(10))
LEVELS = 16
"""Grey levels run from 0 to 16."""


@dataclass(frozen=True)
class Digits:
    """Satisfies `listing.Source`."""

    @property
    def costly(self) -> bool:
        return False

    def listing(self) -> Listing:
        items = (Item(f"{number:04d}", (label,)) for number, label in enumerate(_digits()[1].tolist()))
        return Listing(Items(items), DIGIT_NAMES)

    def reads(self, items: Sequence[Item]) -> Iterator[bytes | BadImage]:
        return one_by_one(self.read, items)

    def read(self, item: Item) -> bytes:
        grey = np.rint(_digits()[0][int(item.name)] * (255 / LEVELS)).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(grey).save(file, "PNG")
        return file.getvalue()


@lru_cache(maxsize=1)
def _digits() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Images (1797, 8, 8) of 0 to 16, and their labels."""
    from sklearn.datasets import load_digits  # takes a second: only where digits are ingested

    bunch = load_digits()
    return bunch.images, bunch.target
