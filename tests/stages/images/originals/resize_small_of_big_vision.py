"""Run big_vision's own resize_small and keep the digests of what it makes, as `resize_small_of_big_vision.json`.

`python resize_small_of_big_vision.py BIG_VISION PHOTOGRAPHS`: the folder of its repository, and that of
sklearn/datasets/images. Made with tensorflow-cpu 2.12.1 on Python 3.11; knows nothing of ours.
"""

import hashlib
import importlib
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image


def pictures(folder):
    """Name and pixels of two photographs, and of patterns of odd sizes."""
    for name in ("china", "flower"):
        yield name, np.asarray(Image.open(Path(folder) / f"{name}.jpg"))
    for height, width in ((97, 61), (5, 7), (1, 9), (1, 1), (31, 200)):
        y, x, c = np.mgrid[:height, :width, :3]
        yield f"{height} x {width}", (y * 37 + x * 91 + c * 53 + y * x).astype(np.uint8)
    yield "even", np.full((113, 71, 3), 200, dtype=np.uint8)


def main():
    """Write each picture at each size."""
    sys.path.insert(0, sys.argv[1])
    ops = importlib.import_module("big_vision.pp.ops_image")
    made = {}
    for name, pixels in pictures(sys.argv[2]):
        for side in (256, 224, 37, 32):
            small = ops.get_resize_small(side)({"image": pixels})["image"].numpy()
            shape = " x ".join(map(str, small.shape[:2]))
            made[f"{name}, {side}"] = f"{shape} {hashlib.sha256(small.tobytes()).hexdigest()[:16]}"
    Path(__file__).with_suffix(".json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
