"""`python -m stages.images.native.proof EXTENSION`: whether it decodes as Pillow does here. Ends with 1, or in a crash.

The extension meets libjpeg's inside in one place (`huffman.c`): a process of its own tries it before it is trusted.
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from stages.images.crops import Box
from stages.images.parts import Extension

SIDE = 160


def main() -> None:
    """Compare parts of pictures with and without restart markers, coloured and grey."""
    extension = Extension.load(Path(sys.argv[1]))
    noise = np.random.default_rng(0).normal(0, 40, (SIDE, SIDE, 3)).cumsum(axis=0).cumsum(axis=1)
    picture = Image.fromarray((np.sin(noise / 300) * 90 + 128).astype(np.uint8))
    for mode in ("RGB", "L"):
        for restarts in (0, 5):
            file = io.BytesIO()
            picture.convert(mode).save(file, "JPEG", quality=90, restart_marker_blocks=restarts)
            data = np.frombuffer(file.getvalue(), dtype=np.uint8)
            with Image.open(file) as image:
                whole = np.asarray(image.convert("RGB"))
            for box in (Box(0, 0, SIDE, SIDE), Box(41, 97, 60, 50), Box(48, 64, 32, 48)):
                pixels = extension.decode_part(data, SIDE, SIDE, box, upright=False)
                if pixels is None or not np.array_equal(pixels, box.of(whole)):
                    raise SystemExit(
                        f"{mode}, a marker each {restarts} blocks, {box}: not the pixels that Pillow gives"
                    )


if __name__ == "__main__":
    main()
