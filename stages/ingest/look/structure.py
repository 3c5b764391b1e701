"""Whether an image file is whole, without decoding a pixel: enough to trust a source that was decoded before. No torch.

Finds what is cut, and in PNG any damage; a bit that flipped in the pixels of a JPEG or WebP is found by decoding alone.
JPEGs of rare kinds are decoded: whether this libjpeg reads them, nothing else tells.
"""

from PIL import Image

from vitpipe.stages.images.decode import by_pillow, check_header, decode
from vitpipe.stages.images.extension import loaded_extension
from vitpipe.stages.images.header import BadImage, Header, rare_kind, segments
from vitpipe.stages.images.png_chunks import chunks

_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = b"\xff\xd9"


def check_structure(data: bytes) -> Header:
    """Format and upright size of a whole file that can be read. BadImage with the reason."""
    header = check_header(data)
    extension = loaded_extension()
    if header.ext == "jpg" and extension is not None and extension.is_plain(data):
        return header
    if header.ext == "jpg" and rare_kind(data):
        height, width, _ = decode(data).shape
        return Header(header.ext, width, height)
    {"jpg": _whole_jpeg, "png": _whole_png, "webp": _whole_webp}[header.ext](data)
    if _orientation(data, header) in _TURNED:
        return Header(header.ext, header.height, header.width)
    return header


def _whole_jpeg(data: bytes) -> None:
    """A thumbnail in the metadata has an end too: what counts is one after the first scan began."""
    if data.rfind(_END_OF_IMAGE) < _scans(data):
        raise BadImage("JPEG truncated: it has no end after its scans")


def _scans(data: bytes) -> int:
    """Where the first scan begins."""
    for marker, at, _ in segments(data):
        if marker == _START_OF_SCAN:
            return at
    raise BadImage("JPEG truncated before its first scan")


def _whole_png(data: bytes) -> None:
    kinds: set[bytes] = set()
    for chunk in chunks(data):
        if not chunk.is_whole:
            raise BadImage(f"PNG damaged: the checksum of its chunk {chunk.kind!r} at byte {chunk.at} is wrong")
        kinds.add(chunk.kind)
    if b"IEND" not in kinds:
        raise BadImage(f"PNG truncated: it ends at byte {len(data)} inside a chunk")
    if b"IDAT" not in kinds:
        raise BadImage("PNG damaged: it has no pixels (no chunk IDAT)")


def _whole_webp(data: bytes) -> None:
    wanted = 8 + int.from_bytes(data[4:8], "little")
    if len(data) < wanted:
        raise BadImage(f"WebP truncated: {len(data)} of {wanted} bytes")
    by_pillow(data, "webp", lambda image: None)  # its headers alone: frames are decoded later


def _orientation(data: bytes, header: Header) -> int:
    metadata = data[: _scans(data)] if header.ext == "jpg" else data  # a search through pixels costs more than the rest
    if b"Exif" not in metadata and b"EXIF" not in metadata and b"eXIf" not in metadata:
        return 1
    return by_pillow(data, header.ext, _stored_orientation)


def _stored_orientation(image: Image.Image) -> int:
    exif = image.getexif()  # of a PNG with its Exif behind its pixels, these are decoded
    return int(exif.get(_ORIENTATION, 1)) if "exif" in image.info else 1  # as in decode
