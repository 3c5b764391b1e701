"""How many scans a JPEG has, counted without decoding: with thousands, a few kilobytes take minutes. No torch.

Each scan of a progressive image passes over all of its blocks, however few bytes it has. Photos have about ten. The
bound is that of libjpeg-turbo's own fuzz targets (`TJPARAM_SCANLIMIT`, 500), whose tools take one as `-maxscans`.
"""

import re

from vitpipe.stages.images.header import BARE, PROGRESSIVE, SIZED, BadImage

MAX_SCANS = 500
"""The same as in `native/decoder.h`. So many empty scans of a grey image of 49 megapixels are 130 KB, and took 2 CPU
seconds."""

_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA


def refuse_many_scans(data: bytes) -> None:
    """Raise BadImage for a JPEG of more than `MAX_SCANS` scans; the decoder finds other damage."""
    if _scans(data) > MAX_SCANS:
        raise BadImage(f"JPEG with more than {MAX_SCANS} scans: each is a pass over the whole image")


def _scans(data: bytes) -> int:
    """Scans that a decoder goes through, found from marker to marker as libjpeg does; or an upper bound if low."""
    scans, at, all_in_one = 0, 0, 0
    while scans <= MAX_SCANS and (found := _MARKER.search(data, at)):
        marker, at = found[1][0], found.end()
        if marker == _END_OF_IMAGE:
            break
        if marker in BARE or marker == _START_OF_IMAGE:
            continue
        body = at + 2
        if marker in SIZED and marker not in PROGRESSIVE:
            all_in_one = data[body + 5] if body + 5 < len(data) else 0
        if marker == _START_OF_SCAN:
            scans += 1
            if data[body : body + 1] == bytes((all_in_one,)):
                break  # a sequential scan of all components is the last, whatever follows
            if scans == 1 and (most := data.count(b"\xff\xda", at)) < MAX_SCANS:
                return scans + most  # metadata after it may contain these bytes too
        at += int.from_bytes(data[at:body], "big")
    return scans
