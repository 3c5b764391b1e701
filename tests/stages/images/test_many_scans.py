"""A few kilobytes of progressive JPEG with thousands of scans are refused before they cost minutes, by every reader."""

import json
import struct

import numpy as np
import pytest
from photos import contents as files_of
from photos import encoded, ingest, picture, write

from tests.stages.images.jpegs import by_pillow, needs_extension, textured
from vitpipe.stages.images.crops import Box
from vitpipe.stages.images.decode import check_header, decode
from vitpipe.stages.images.extension import loaded_extension
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.images.image_digests import digest_images
from vitpipe.stages.images.scans import MAX_SCANS
from vitpipe.stages.ingest.look.structure import check_structure

SIDE = 64
EOB_RUN = 0xE0  # run length of 14 more bits, of blocks without another coefficient


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def scan(first: int, last: int, bits: str) -> bytes:
    bits += "1" * (-len(bits) % 8)
    data = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))
    return segment(0xDA, bytes((1, 1, 0, first, last, 0))) + data.replace(b"\xff", b"\xff\0")


def progressive(scans: int, beside: bytes = b"") -> bytes:
    """A grey square of so many scans: its DC values, then again and again that nothing follows, in 12 bytes."""
    table = bytes((1, *[0] * 15))
    blocks = (SIDE // 8) ** 2
    headers = (
        segment(0xDB, b"\0" + bytes((16,) * 64)),
        segment(0xC2, struct.pack(">BHHB", 8, SIDE, SIDE, 1) + b"\x01\x11\0"),
        segment(0xC4, b"\0" + table + b"\0"),
        segment(0xC4, b"\x10" + table + bytes((EOB_RUN,))),
    )
    nothing = scan(1, 63, "0" + f"{blocks:014b}")  # 2^14 and as many blocks, more than there are: the last run of all
    return b"\xff\xd8" + beside + b"".join(headers) + scan(0, 0, "0" * blocks) + nothing * (scans - 1) + b"\xff\xd9"


def sequential(scans: int) -> bytes:
    """A baseline JPEG whose components come one by one, the first again and again."""
    table = bytes((1, *[0] * 15))
    mcus = (SIDE // 8) ** 2
    parts = b"\x01\x11\0\x02\x11\0\x03\x11\0"
    headers = (
        segment(0xDB, b"\0" + bytes((16,) * 64)),
        segment(0xC0, struct.pack(">BHHB", 8, SIDE, SIDE, 3) + parts),
        segment(0xC4, b"\0" + table + b"\0"),
        segment(0xC4, b"\x10" + table + b"\0"),
    )
    data = b"\0" * (2 * mcus // 8)
    one = [segment(0xDA, bytes((1, component, 0, 0, 63, 0))) + data for component in (1, 2, 3)]
    return b"\xff\xd8" + b"".join(headers) + b"".join(one) + one[0] * (scans - 3) + b"\xff\xd9"


@pytest.mark.parametrize("make", [progressive, sequential])
def test_as_many_as_are_accepted_have_their_pixels_and_one_more_is_refused_by_all(make) -> None:
    most, more = make(MAX_SCANS), make(MAX_SCANS + 1)
    assert np.array_equal(decode(most), by_pillow(most)) and decode(most).shape == (SIDE, SIDE, 3)
    assert check_structure(most) == check_header(most)
    for look in (check_header, check_structure, decode):
        with pytest.raises(BadImage, match="JPEG with more than 500 scans"):
            look(more)
    good, bad = digest_images([most, more])
    assert not isinstance(good, BadImage) and isinstance(bad, BadImage) and "scans" in str(bad)


@needs_extension
@pytest.mark.parametrize("make", [progressive, sequential])
def test_the_extension_stops_by_itself(make) -> None:
    """A reader's crop asks it first, without a look at the headers."""
    extension = loaded_extension()
    assert extension is not None
    for scans, is_taken in ((MAX_SCANS, True), (MAX_SCANS + 1, False), (100_000, False)):
        data = np.frombuffer(make(scans), dtype=np.uint8)
        assert (extension.decode_part(data, SIDE, SIDE, Box(8, 8, 16, 16), False) is not None) is is_taken
        assert (extension.tile(data) is not None) is is_taken


def test_what_only_looks_like_scans_is_none() -> None:
    """In metadata, and behind the end, these bytes say nothing."""
    comment = segment(0xFE, b"\xff\xda" * 30_000)
    image = textured(40, 40, 1)
    for data in (
        progressive(MAX_SCANS, beside=comment),
        encoded(image, "JPEG", comment=b"\xff\xda" * 30_000),
        encoded(image, "JPEG", progressive=True, comment=b"\xff\xda" * 30_000),
        encoded(image, "JPEG", progressive=True) + b"\xff\xda" * 1_000,
        encoded(image, "JPEG") + b"\xff\xda\0\x08" * 1_000,
    ):
        assert decode(data).shape[2] == 3


@pytest.mark.parametrize("check", ["decode", "structure"])
def test_an_ingest_sets_it_aside_with_the_reason(tmp_path, check: str) -> None:
    for number in range(4):
        write(tmp_path / f"source/c{number % 2}/{number}.jpg", encoded(picture(number), "JPEG"))
    write(tmp_path / "source/c0/many.jpg", progressive(20_000))
    made = ingest(tmp_path, {"source": {"kind": "folder", "root": str(tmp_path / "source")}, "check": check})
    aside = [json.loads(line) for line in files_of(made)["quarantine.jsonl"].splitlines()]
    assert [(one["source"], one["reason"].partition(":")[0]) for one in aside] == [
        ("c0/many.jpg", "JPEG with more than 500 scans")
    ]
