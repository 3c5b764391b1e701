"""Every odd kind of image has one outcome: its pixels, to the digest, or the reason why it is set aside."""

import hashlib
import json
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from forking import processes
from photos import contents, encoded, ingest, picture, write
from PIL import Image

from vitpipe.stages.images import decode as decode_module
from vitpipe.stages.images.decode import decode
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.ingest.listing import Item
from vitpipe.stages.ingest.look.scan import ScanTask, scan
from vitpipe.stages.ingest.look.spool import Spool
from vitpipe.stages.ingest.sources.folder_tree import FolderTree

RGB = picture(7, width=30, height=20)


def png(width: int, height: int, row: bytes) -> bytes:
    """A whole 1-bit PNG, however large, of rows all alike."""
    compress = zlib.compressobj(9)
    data = b"".join([*(compress.compress(b"\0" + row) for _ in range(height)), compress.flush()])
    chunks = (
        b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0),
        b"IDAT" + data,
        b"IEND",
    )
    whole = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


def bomb(side: int) -> bytes:
    return png(side, side, bytes(-(-side // 8)))


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(RGB, "JPEG", exif=exif, quality=95)


def adobe_inverted() -> bytes:
    """CMYK as Photoshop writes it: Pillow writes it so too, with Adobe's marker."""
    data = encoded(RGB.convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data
    return data


def plain_cmyk() -> bytes:
    """The same bytes without the marker."""
    data = adobe_inverted()
    start = data.index(b"\xff\xee")
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]


def much_exif() -> bytes:
    """10 MB of metadata, in segments of 64 kB, before the first pixel."""
    data = encoded(RGB, "JPEG", quality=95)
    segment = b"\xff\xe1" + struct.pack(">H", 65_535) + b"Exif\0\0" + bytes(65_527)
    return data[:2] + segment * 160 + data[2:]


RAMP = Image.fromarray((np.arange(600, dtype=np.uint16) * 109).reshape(20, 30))
ACCEPTED = {
    "jpeg": encoded(RGB, "JPEG", quality=95),
    "jpeg-progressive": encoded(RGB, "JPEG", quality=95, progressive=True),
    "jpeg-grey": encoded(RGB.convert("L"), "JPEG", quality=95),
    "jpeg-cmyk-adobe": adobe_inverted(),
    "jpeg-cmyk-plain": plain_cmyk(),
    "jpeg-much-exif": much_exif(),
    **{f"jpeg-orientation-{number}": turned(number) for number in range(1, 9)},
    "png": encoded(RGB, "PNG"),
    "png-16-bit": encoded(RAMP, "PNG"),
    "png-alpha": encoded(RGB.convert("RGBA"), "PNG"),
    "png-palette": encoded(RGB.convert("P"), "PNG"),
    "png-palette-transparent": encoded(RGB.convert("P"), "PNG", transparency=3),
    "png-1-bit": encoded(RGB.convert("1"), "PNG"),
    "png-grey": encoded(RGB.convert("L"), "PNG"),
    "png-animated": encoded(RGB, "PNG", save_all=True, append_images=[picture(2, 30, 20)]),
    "png-1x1": encoded(RGB.resize((1, 1)), "PNG"),
    "png-1x20000": encoded(RGB.resize((1, 20_000)), "PNG"),
    "png-49-megapixels": bomb(7000),
    "webp-lossless": encoded(RGB, "WEBP", lossless=True),
    "webp-animated": encoded(RGB, "WEBP", lossless=True, save_all=True, append_images=[picture(2, 30, 20)]),
}
REFUSED = {
    "zero-bytes": (b"", "the file is empty"),
    "text": (b"hello", "not a JPEG, PNG or WebP"),
    "gif": (encoded(RGB, "GIF"), "it looks like a GIF"),
    "tiff": (encoded(RGB, "TIFF"), "it looks like a TIFF"),
    "bomb-169-megapixels": (bomb(13_000), "13000 x 13000 pixels are over the cap of 50000000"),
    "bomb-900-megapixels": (bomb(30_000), "30000 x 30000 pixels are over the cap of 50000000"),
    "jpeg-truncated": (ACCEPTED["jpeg"][:-200], "JPEG damaged"),
    "png-truncated": (ACCEPTED["png"][:-200], "PNG damaged"),
    "webp-truncated": (ACCEPTED["webp-lossless"][:-100], "WEBP damaged"),
    "png-flipped": (ACCEPTED["png"][:90] + b"\xff" + ACCEPTED["png"][91:], "PNG damaged"),
}


def pixels_sha256(data: bytes) -> str:
    pixels = decode(data)
    return f"{pixels.shape[0]}x{pixels.shape[1]} {hashlib.sha256(pixels.tobytes()).hexdigest()[:16]}"


DIGESTS = json.loads((Path(__file__).parent / "image_zoo.json").read_text())
"""Upright decoded pixels of each accepted kind. Another decoder that gives others changes what models are shown."""


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_accepted_decodes_to_these_pixels(name):
    assert pixels_sha256(ACCEPTED[name]) == DIGESTS[name]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(name):
    data, reason = REFUSED[name]
    with pytest.raises(BadImage, match=reason):
        decode(data)


def test_kinds_of_one_picture_look_alike_and_other_pictures_do_not():
    """The rules by their outcome: but for orientation, each of these is the same picture."""
    straight = decode(ACCEPTED["png"]).astype(int)
    for name in ("jpeg", "jpeg-progressive", "jpeg-cmyk-adobe", "jpeg-much-exif", "png-alpha", "webp-lossless"):
        assert np.abs(decode(ACCEPTED[name]).astype(int) - straight).mean() < 12, name
    for name in ("png-animated", "webp-animated"):
        assert (decode(ACCEPTED[name]) == straight).all(), name  # the first frame
    # as Pillow: four channels are taken as Adobe writes them, inverted, whether its marker is there or not
    assert DIGESTS["jpeg-cmyk-plain"] == DIGESTS["jpeg-cmyk-adobe"]
    sizes = [decode(ACCEPTED[f"jpeg-orientation-{number}"]).shape[:2] for number in range(1, 9)]
    assert sizes == [(20, 30)] * 4 + [(30, 20)] * 4


def test_each_file_of_a_folder_has_its_outcome(tmp_path):
    """Names lie: what counts is the content."""
    for number, (name, data) in enumerate(ACCEPTED.items()):
        write(tmp_path / f"zoo/ok/{name}.{('jpg', 'png', 'webp')[number % 3]}", data)
    for name, (data, _) in REFUSED.items():
        write(tmp_path / f"zoo/ok/{name}.jpg", data)
    source = {"kind": "folder", "root": str(tmp_path / "zoo")}
    shards = ingest(tmp_path, {"source": source, "deduplicate": {"exact": False}})
    rows = [json.loads(line) for line in contents(shards)["quarantine.jsonl"].splitlines()]
    told = {Path(row["source"]).stem: row["reason"] for row in rows}
    assert told.keys() == REFUSED.keys() and all(REFUSED[name][1] in reason for name, reason in told.items())
    assert shards.splits == {"train": len(ACCEPTED)}


def _memory_of_scanning(root, answer):
    source, before = FolderTree(str(root)), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    items = tuple(Item(f"zoo/{path.name}", (0,)) for path in sorted((root / "zoo").iterdir()))
    scan(ScanTask(0, source, items, Spool(root / "spool")))
    answer.put((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def _unbounded(root, answer):
    decode_module.MAX_PIXELS = 10**9
    decode_module.png_part = lambda *_: None  # Pillow takes more bytes a pixel
    Image.MAX_IMAGE_PIXELS = None
    _memory_of_scanning(root, answer)


def largest_progressive() -> bytes:
    colours = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    large = Image.fromarray(np.kron(colours, np.ones((70, 70, 1), np.uint8)))
    return encoded(large, "JPEG", progressive=True, subsampling=0)


def test_a_workers_memory_is_bounded_whatever_it_meets(tmp_path):
    context = processes()
    for name in ("bomb-169-megapixels", "bomb-900-megapixels"):
        write(tmp_path / f"a/zoo/{name}.png", REFUSED[name][0])
    write(tmp_path / "a/zoo/largest.png", ACCEPTED["png-49-megapixels"])
    large = largest_progressive()
    for number in range(3):  # libjpeg holds six bytes a pixel of each, and three of them are looked at together
        write(tmp_path / f"a/zoo/progressive-{number}.jpg", large)
    write(tmp_path / "b/zoo/bomb.png", REFUSED["bomb-169-megapixels"][0])

    def grown_mb(work, root):
        answer = context.SimpleQueue()
        process = context.Process(target=work, args=(root, answer))
        process.start()
        process.join()
        return answer.get()

    bounded = grown_mb(_memory_of_scanning, tmp_path / "a")
    assert bounded < 600  # of the largest image accepted: libjpeg's six bytes a pixel, ours of 3, and its digest
    assert grown_mb(_unbounded, tmp_path / "b") > 1000  # negative control: it is the cap that keeps it so
