"""Run big_vision's own operations and keep the digests of what they make, as `randaugment_of_big_vision.json`.

`python randaugment_of_big_vision.py BIG_VISION PHOTOGRAPHS`: its pp/archive/autoaugment.py, and the folder
sklearn/datasets/images. Made with tensorflow-cpu 2.12.1, tensorflow-addons 0.20.0 and numpy 1.23.5 on Python 3.11;
knows nothing of ours.
"""

import hashlib
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = (
    "AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "Color", "Contrast", "Brightness",
    "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY", "Cutout", "SolarizeAdd",
)  # fmt: skip
DRAWS = {"Cutout": ((10, 70), (48, 40))}
"""The centre, row and column; of the others 0.9 keeps the sign and 0.1 turns it."""


def photographs(folder):
    """Cut the middle 96 x 80 pixels of each, as stored."""
    for name in ("china.jpg", "flower.jpg"):
        whole = np.asarray(Image.open(Path(folder) / name))
        top, left = (whole.shape[0] - 96) // 2, (whole.shape[1] - 80) // 2
        yield whole[top : top + 96, left : left + 80]


def main():
    """Write each operation at each magnitude, with either draw."""
    spec = importlib.util.spec_from_file_location("autoaugment", sys.argv[1])
    original = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(original)
    tf, settings = original.tf, original.HParams(cutout_const=40, translate_const=100)
    made = {}
    for name in NAMES:
        for magnitude in (0, 5, 10, 15, 20):
            for drawn in DRAWS.get(name, ((0.9,), (0.1,))):
                digest = hashlib.sha256()
                for photograph in photographs(sys.argv[2]):
                    left = list(drawn)
                    tf.random_uniform = lambda *given, left=left, dtype=tf.float32, **more: tf.constant(
                        left.pop(0), dtype
                    )
                    apply, _, given = original._parse_policy_info(name, 0.5, float(magnitude), [128] * 3, settings)
                    if name == "Cutout":
                        left[:] = drawn
                    digest.update(apply(tf.constant(photograph), *given).numpy().tobytes())
                made.setdefault(f"{name} {magnitude}", []).append(digest.hexdigest()[:16])
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(digests)}" for name, digests in made.items())
    Path(__file__).with_suffix(".json").write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
