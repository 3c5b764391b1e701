"""JPEGs with restart markers, so that who reads a part skips the rest: other bytes, equal pixels. No torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vitpipe.infra.errors import UsageError
from vitpipe.stages.images.decode import decode
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.images.native.build import DO
from vitpipe.stages.images.parts import loaded
from vitpipe.stages.ingest.listing import Item, Listing, Source


@dataclass(frozen=True)
class WithRestarts:
    """A source whose JPEGs are written anew, losslessly; images of other kinds and damaged ones pass unchanged."""

    source: Source

    @property
    def costly(self) -> bool:
        return self.source.costly

    def listing(self) -> Listing:
        """Of the source as it is."""
        return self.source.listing()

    def read(self, item: Item) -> bytes:
        return with_restarts(self.source.read(item))

    def reads(self, items: Sequence[Item]) -> Iterator[bytes | BadImage]:
        for data in self.source.reads(items):
            yield data if isinstance(data, BadImage) else with_restarts(data)


def with_restarts(data: bytes) -> bytes:
    """The file with restart markers if it is a JPEG whose pixels stay the same to the last bit, else the file itself.

    Always the same bytes for the same file and libjpeg. UsageError where the extension was not built.
    """
    extension = loaded()
    if extension is None:
        raise UsageError("ingest with restart_intervals", "the reader's C extension is not built on this machine", DO)
    rewritten = extension.tile(np.frombuffer(data, dtype=np.uint8))
    if rewritten is None:
        return data
    try:
        same = np.array_equal(decode(data), decode(rewritten))
    except BadImage:
        return data
    return type(data)(rewritten) if same else data  # of the type that says whether the source has it so
