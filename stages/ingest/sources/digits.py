"""The 1797 handwritten digits bundled with scikit-learn (UCI Optdigits test set), true to the pixel. No torch.

8 x 8 greys of 17 levels become 8-bit grey PNGs of 8 x 8: enlarging is the reader's business.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vitpipe.infra.errors import UsageError
from vitpipe.stages.ingest.sources.packaged import PackagedImages, PackagedSource
from vitpipe.stages.ingest.sources.source_settings import SourceCount, Splits

if TYPE_CHECKING:  # as in `source_settings.py`
    import numpy as np
    import numpy.typing as npt

    from vitpipe.stages.ingest.listing import Item, Listing

DIGITS_SPLITS = {"train": 0.8, "test": 0.2}
"""The fixed division of the digits, by content hash."""
NUM_DIGITS = 1797
DIGIT_NAMES = tuple(str(digit) for digit in range(10))
LEVELS = 16
"""Grey levels run from 0 to 16."""
SCIKIT_LEARN_DIGITS = "datasets/data/digits.csv.gz"
"""Where the package has them."""


class DigitsSource(PackagedSource):
    """The 1797 real handwritten digits bundled with scikit-learn, 8 x 8 pixels each, kept at that size."""

    ingest_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"splits": DIGITS_SPLITS})

    kind: Literal["digits"]

    def open(self, splits: Splits) -> "Digits":
        """The digits, whatever the splits."""
        return Digits()

    def count(self, splits: Splits) -> SourceCount:
        """All of them, without a look."""
        return SourceCount(NUM_DIGITS, 100.0, 0.001, len(DIGIT_NAMES), DIGIT_NAMES, formats={"png": 1.0})

    def text_digests(self) -> dict[str, str]:
        """The package's file. UsageError where it is not installed."""
        spec = find_spec("sklearn")  # found, not imported: only its file is needed
        path = Path(spec.origin if spec and spec.origin else "").parent / SCIKIT_LEARN_DIGITS
        if not path.is_file():
            found = f"scikit-learn, which brings them as {path.name}, is not installed here"
            raise UsageError("look at the digits", found)
        return {path.name: sha256(path.read_bytes()).hexdigest()}


@dataclass(frozen=True)
class Digits(PackagedImages):
    """Satisfies `opened.Source`."""

    costly: ClassVar[bool] = False
    """A digit is encoded in microseconds."""

    def listing(self) -> "Listing":
        """All digits, in scikit-learn's order."""
        from vitpipe.stages.ingest.listing import Item, Items, Listing

        items = (Item(f"{number:04d}", (label,)) for number, label in enumerate(_digits()[1].tolist()))
        return Listing(Items(items), DIGIT_NAMES)

    def read(self, item: "Item") -> bytes:
        """One digit as a grey PNG of 8 x 8."""
        import numpy as np

        from vitpipe.stages.ingest.benchmarks.entries import png

        return png(np.rint(_digits()[0][int(item.name)] * (255 / LEVELS)).astype(np.uint8))


@lru_cache(maxsize=1)
def _digits() -> "tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]":
    """Images (1797, 8, 8) of 0 to 16, and their labels."""
    from sklearn.datasets import load_digits  # takes a second: only where digits are ingested

    bunch = load_digits()
    return bunch.images, bunch.target
