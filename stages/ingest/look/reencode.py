"""Other bytes than the source has, where the config asks for them: smaller images, or another format. No torch."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from vitpipe.stages.images.decode import decode
from vitpipe.stages.images.header import FORMATS, BadImage, read_header
from vitpipe.stages.ingest.config import Reencode
from vitpipe.stages.ingest.listing import Item, Listing, Source


class Reencoded(bytes):
    """An image that is not as the source has it."""


@dataclass(frozen=True)
class ReencodingSource:
    """Satisfies `listing.Source`: another source, its images changed as asked."""

    source: Source
    how: Reencode

    @property
    def costly(self) -> bool:
        return True

    def listing(self) -> Listing:
        return self.source.listing()

    def read(self, item: Item) -> bytes:
        return reencoded(self.source.read(item), self.how)

    def reads(self, items: Sequence[Item]) -> Iterator[bytes | BadImage]:
        for data in self.source.reads(items):
            if isinstance(data, BadImage):
                yield data
                continue
            try:
                yield reencoded(data, self.how)
            except BadImage as error:
                yield error


def reencoded(data: bytes, how: Reencode) -> bytes:
    """The image as asked, upright and without metadata; the same bytes where it is so already. BadImage as decoding.

    Pillow's Lanczos and encoders: the same bytes for the same version of it.
    """
    header = read_header(data)
    ext = how.ext or header.ext
    shorter = min(header.width, header.height)
    if ext == header.ext and (how.shorter_px is None or shorter <= how.shorter_px):
        return data
    image = Image.fromarray(decode(data))
    if how.shorter_px is not None and shorter > how.shorter_px:
        wide, high = (max(1, round(side * how.shorter_px / shorter)) for side in image.size)
        image = image.resize((wide, high), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, FORMATS[ext], **({"quality": how.quality} if ext != "png" else {}))
    return Reencoded(file.getvalue())
