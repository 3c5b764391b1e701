"""Other bytes than the source has, where the config asks for them: smaller images, another format, restart markers.

No torch. Restart markers let whoever reads a part of a JPEG skip the rest: other bytes, equal pixels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from vitpipe.infra.errors import UsageError
from vitpipe.stages.images.decode import decode, encoded
from vitpipe.stages.images.extension import loaded_extension
from vitpipe.stages.images.header import FORMATS, BadImage, read_header, tried
from vitpipe.stages.images.native.compilation import DO
from vitpipe.stages.ingest.config import IngestConfig, Reencode
from vitpipe.stages.ingest.listing import ImageReader, Item


class Reencoded(bytes):
    """An image that is not as the source has it."""


def as_written(source: ImageReader, config: IngestConfig) -> ImageReader:
    """The source with its images changed as the config asks, before they are looked at and written."""
    if config.reencode is not None:
        source = ChangingReader(source, partial(reencoded, how=config.reencode), costly=True)
    if config.restart_intervals:  # quick, unlike encoding
        source = ChangingReader(source, with_restarts, source.costly)
    return source


@dataclass(frozen=True)
class ChangingReader:
    """Satisfies `listing.ImageReader`: another one's images, each changed by a function that may raise BadImage."""

    source: ImageReader
    change: Callable[[bytes], bytes]
    costly: bool

    def read(self, item: Item) -> bytes:
        """One image, changed."""
        return self.change(self.source.read(item))

    def reads(self, items: Sequence[Item]) -> Iterator[bytes | BadImage]:
        """Each image changed, or why it cannot be."""
        for data in self.source.reads(items):
            yield data if isinstance(data, BadImage) else tried(self.change, data)


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
    return Reencoded(encoded(image, FORMATS[ext], **({"quality": how.quality} if ext != "png" else {})))


def with_restarts(data: bytes) -> bytes:
    """The file with restart markers if it is a JPEG whose pixels stay the same to the last bit, else the file itself.

    Always the same bytes for the same file and libjpeg. UsageError where the extension was not built.
    """
    extension = loaded_extension()
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
