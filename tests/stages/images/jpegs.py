"""JPEGs of every kind of sampling, scan and restart marker, and what Pillow alone makes of them."""

import io
import os
from unittest import mock

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from vitpipe.stages.images import extension
from vitpipe.stages.images.crops import Box
from vitpipe.stages.images.decode import decode
from vitpipe.stages.images.header import BadImage

SAMPLINGS = {"4:4:4": (0, None), "4:2:2": (1, None), "4:2:0": (2, None), "4:4:0": (1, 0x12), "4:1:1": (2, 0x41)}
"""Pillow's number, and the sampling to write in its place in a file of one scan: MCUs of as many blocks, laid out
otherwise."""

needs_extension = pytest.mark.skipif(
    extension.loaded_extension() is None and os.environ.get("VITPIPE_REQUIRE_SERVICES") != "1",
    reason="the reader's C extension is not built: python -m vitpipe.stages.images.native.prebuild",
)


def textured(height: int, width: int, seed: int) -> Image.Image:
    """A picture with edges, slopes and noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (1 + height // 9, 1 + width // 9, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    noise = rng.integers(-30, 31, smooth.shape) * (rng.random() < 0.7)
    return Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, sampling: str = "4:2:0", **options) -> bytes:
    file = io.BytesIO()
    number, other = SAMPLINGS[sampling]
    image.save(file, "JPEG", **({} if image.mode == "L" else {"subsampling": number}), **options)
    data = bytearray(file.getvalue())
    if other is not None and image.mode != "L":
        frame = data.index(b"\xff\xc0\x00\x11")
        height, width = image.height, image.width
        height, width = (2 * height, -(-width // 2)) if other == 0x12 else (-(-height // 2), 2 * width)
        data[frame + 5 : frame + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
        data[frame + 11] = other
    return bytes(data)


def by_pillow(data: bytes) -> np.ndarray | None:
    """The pixels without the extension, None when they are refused."""
    with mock.patch.object(extension, "loaded_extension", lambda: None):
        try:
            return decode(data)
        except BadImage:
            return None


@st.composite
def jpegs(draw: st.DrawFn, most_px: int = 150) -> bytes:
    height, width = draw(st.tuples(st.integers(1, most_px), st.integers(1, most_px)))
    image = textured(height, width, draw(st.integers(0, 1000)))
    if draw(st.integers(0, 5)) == 0:
        image = image.convert("L")
    options = draw(
        st.fixed_dictionaries(
            {"quality": st.sampled_from([5, 30, 75, 90, 98, 100])},
            optional={
                "optimize": st.just(True),
                "progressive": st.booleans(),
                "restart_marker_rows": st.integers(1, 2),
                "restart_marker_blocks": st.integers(1, 6),
            },
        )
    )
    samplings = ["4:4:4", "4:2:2", "4:2:0"] if options.get("progressive") else sorted(SAMPLINGS)
    return jpeg(image, draw(st.sampled_from(samplings)), **options)


@st.composite
def boxes(draw: st.DrawFn, height: int, width: int) -> Box:
    rows, columns = draw(st.integers(1, height)), draw(st.integers(1, width))
    return Box(draw(st.integers(0, height - rows)), draw(st.integers(0, width - columns)), rows, columns)
