"""`python -m vitpipe.stages.images.extension_proof EXTENSION`: does it decode as Pillow, vary planes as numpy
and digest as hashlib does?

Exits with 1, or crashes, where it does not. The extension reaches into libjpeg's internals in one place (`huffman.c`),
so a process of its own tries it before it is trusted.
"""

import hashlib
import io
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from vitpipe.stages.images import numpy_steps
from vitpipe.stages.images.crops import Box
from vitpipe.stages.images.digests import BLOCK, RunningDigest, has_instructions, sha256_by_extension
from vitpipe.stages.images.extension import Extension
from vitpipe.stages.images.header import Header
from vitpipe.stages.images.image_digests import digests_by_extension
from vitpipe.stages.images.numpy_steps import Program, What
from vitpipe.stages.images.steps import STEP, Step, nearest, packed

SIDE = 160
BOXES = (Box(0, 0, SIDE, SIDE), Box(41, 97, 60, 50), Box(48, 64, 32, 48))


def main() -> None:
    """Prove pixels first, then digests where this CPU has the instructions."""
    extension = Extension(Path(sys.argv[1]))
    compare_pixels(extension)
    compare_pngs(extension)
    compare_steps(extension)
    if has_instructions(extension):
        compare_digests(extension)
        compare_contents(extension)


def compare_pixels(extension: Extension) -> None:
    """Compare parts of pictures with and without restart markers, in colour and grey. SystemExit where they differ."""
    for name, file, whole in _pictures():
        data = np.frombuffer(file, dtype=np.uint8)
        for box in BOXES:
            pixels = extension.decode_part(data, SIDE, SIDE, box, upright=False)
            if pixels is None or not np.array_equal(pixels, box.of(whole)):
                raise SystemExit(f"{name}, {box}: not the pixels that Pillow gives")


def compare_pngs(extension: Extension) -> None:
    """Compare parts of PNGs of each kind that Pillow writes. SystemExit where they differ."""
    picture = _picture()
    for mode, level in product(("RGB", "RGBA", "L", "LA", "P", "1"), (0, 1, 6)):
        file = io.BytesIO()
        picture.convert(mode).save(file, "PNG", compress_level=level)
        data, whole = np.frombuffer(file.getvalue(), dtype=np.uint8), np.asarray(picture.convert(mode).convert("RGB"))
        for box in BOXES:
            pixels = extension.png_part(data, SIDE, SIDE, box)
            if pixels is None or not np.array_equal(pixels, box.of(whole)):
                raise SystemExit(f"PNG of {mode}, {box}: not the pixels that Pillow gives")


def compare_steps(extension: Extension) -> None:
    """Compare each step of RandAugment with numpy's. SystemExit where they differ."""
    draw = np.random.default_rng(0)
    turned, table = (0.9, -0.4, 31.7, 0.4, 0.9, -12.5), draw.integers(0, 256, 256, dtype=np.uint8)
    moves = (turned, (1.0, 0.3, 0.0, 0.0, 1.0, 0.0), (1.0, 0.0, 0.0, -0.3, 1.0, 7.4), (1.0, 0.0, 7.25, 0.0, 1.0, 0.0))
    for height, width in ((SIDE, SIDE), (41, 67), (2, 5), (1, 1)):
        planes = draw.integers(0, 256, (3, height, width), dtype=np.uint8)
        planes[:, : height // 2] = 13 * (planes[:, : height // 2] // 64)  # even parts, where rounding decides
        steps = [Step(What.TABLE, table=table), Step(What.EQUALIZE), Step(What.EVEN, numbers=(96, 1.9))]
        steps += [nearest(height, width, move, 128) for move in moves]
        steps += [Step(What.BOX, numbers=(0, 1, height, width), fill=7)]
        steps += [Step(What.AUTOCONTRAST, program) for program in Program]
        blends = product((What.COLOUR, What.CONTRAST, What.SHARPNESS), Program, (2.8, 0.1))
        steps += [Step(what, by, (factor,)) for what, by, factor in blends if by or what != What.CONTRAST]
        steps += [Step(what, numbers=move, fill=128) for what, move in product((What.BILINEAR, What.BICUBIC), moves)]
        for step in steps:
            found, wanted = planes.copy(), planes.copy()
            extension.steps(found, np.array([packed(step)], dtype=STEP))
            numpy_steps.take(wanted, *step)
            if not np.array_equal(found, wanted):
                raise SystemExit(f"{step} on {height} x {width}: not the pixels that numpy gives")


def compare_contents(extension: Extension) -> None:
    """Compare digests of the same pictures, each given twice in one call. SystemExit where they differ."""
    names, files, wholes = zip(*_pictures(), *_pictures(), strict=True)
    found = digests_by_extension(extension, files, [Header("jpg", SIDE, SIDE)] * len(files))
    for place, (name, whole) in enumerate(zip(names, wholes, strict=True)):
        of_pixels = hashlib.sha256(b"%dx%d" % (SIDE, SIDE) + whole.tobytes()).hexdigest()
        wanted = (hashlib.sha256(files[place]).hexdigest(), of_pixels)
        if place not in found or (found[place].sha256, found[place].pixels_sha256) != wanted:
            raise SystemExit(f"{name}: not the digests of the file and of the pixels that Pillow gives")


def _pictures() -> Iterator[tuple[str, bytes, npt.NDArray[np.uint8]]]:
    """Description, file and pixels of each JPEG."""
    picture = _picture()
    for mode, restarts, own_tables in product(("RGB", "L"), (0, 5), (False, True)):
        file = io.BytesIO()
        options = {"restart_marker_blocks": restarts, "optimize": own_tables}
        picture.convert(mode).save(file, "JPEG", quality=90, **options)
        with Image.open(file) as image:
            yield f"{mode}, {options}", file.getvalue(), np.asarray(image.convert("RGB"))


def _picture() -> Image.Image:
    noise = np.random.default_rng(0).normal(0, 40, (SIDE, SIDE, 3)).cumsum(axis=0).cumsum(axis=1)
    return Image.fromarray((np.sin(noise / 300) * 90 + 128).astype(np.uint8))


def compare_digests(extension: Extension) -> None:
    """Compare digests of contents of all lengths up to some blocks. SystemExit where they differ."""
    data = np.random.default_rng(0).integers(0, 256, 5 * BLOCK, dtype=np.uint8)
    contents = [(data[length:][: length % BLOCK].tobytes(), data[:length]) for length in range(4 * BLOCK)]
    for (head, body), found in zip(contents, sha256_by_extension(extension, contents), strict=True):
        if found != hashlib.sha256(head + body.tobytes()).hexdigest():
            raise SystemExit(f"{len(head)} and {len(body)} bytes: not the digest that hashlib gives")
    running, blocks = RunningDigest(extension), data.tobytes()
    for start in (0, 1, BLOCK, 2 * BLOCK):
        for size in (0, BLOCK - 1, 2 * BLOCK, 3 * BLOCK):
            if running.add(blocks, start, size) != hashlib.sha256(blocks[start : start + size]).hexdigest():
                raise SystemExit(f"{size} bytes from {start} of {len(blocks)}: not the digest that hashlib gives")
    if running.hexdigest() != hashlib.sha256(16 * blocks).hexdigest():
        raise SystemExit("blocks as they came: not the digest that hashlib gives")


if __name__ == "__main__":
    main()
