"""An ingest cut into parts of a few images, as if there were a hundred million of them."""

import pytest

from vitpipe.stages.ingest.choose import near, order
from vitpipe.stages.ingest.lists import listed, raw, sort
from vitpipe.stages.ingest.parts import lines, rows


def small_parts(patch: pytest.MonkeyPatch, part: int = 5, sheet: int = 2, chunk: int = 3) -> None:
    """Let parts have so many rows, tables in them so many, and tasks look at so many images."""
    patch.setattr(listed, "PART_ROWS", part)
    for size in ("RANGE_IMAGES", "SOLE"):
        patch.setattr(near, size, part)
    for module in (rows, raw, sort, order):
        patch.setattr(module, "SHEET_ROWS", sheet)
    patch.setattr(raw, "SAMPLE_ROWS", sheet)
    patch.setattr(lines, "TOGETHER", sheet)
    patch.setattr(listed, "CHUNK_IMAGES", chunk)
