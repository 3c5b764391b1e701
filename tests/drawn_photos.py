"""A folder of drawn photographs for the tutorial: four kinds of dishes, in train and val. `drawn_photos.py FOLDER`."""

import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

KINDS = ("bowl", "cup", "plate", "spoon")
SIDES = (160, 120)


def draw(root: Path, train: int = 40, val: int = 10) -> None:
    """Draw so many of each kind for training, and so many to test on, below `root`."""
    for split, count in (("train", train), ("val", val)):
        for kind in KINDS:
            (root / split / kind).mkdir(parents=True)
            for number in range(count):
                chance = random.Random(f"{split} {kind} {number}")
                photo(kind, chance).save(root / split / kind / f"{number + 1:03}.jpg", quality=88)


def photo(kind: str, chance: random.Random) -> Image.Image:
    """A dish on a table, somewhere, in some light."""
    table = Image.frombytes("L", (8, 6), chance.randbytes(48)).resize(SIDES, Image.Resampling.BICUBIC)
    tint = [chance.randrange(20, 90) for _ in range(3)]
    ground = Image.merge("RGB", [table.point([light // 8 + add for light in range(256)]) for add in tint])
    dish = Image.new("L", (240, 240), 0)
    _shape(ImageDraw.Draw(dish), kind)
    side = chance.randrange(90, 116)
    dish = dish.rotate(chance.uniform(-15, 15), Image.Resampling.BICUBIC).resize((side, side), Image.Resampling.LANCZOS)
    at = (chance.randrange(SIDES[0] - side), chance.randrange(SIDES[1] - side))
    glaze = tuple(chance.randrange(170, 256) for _ in range(3))
    ground.paste(Image.new("RGB", dish.size, tuple(level // 2 for level in tint)), (at[0] + 4, at[1] + 6), dish)
    ground.paste(Image.new("RGB", dish.size, glaze), at, dish)
    return ground.filter(ImageFilter.GaussianBlur(chance.uniform(0.3, 1.2)))


def _shape(pen: ImageDraw.ImageDraw, kind: str) -> None:
    """Each kind as white on black, 240 px a side."""
    if kind == "plate":
        pen.ellipse((20, 60, 220, 180), 255)
        pen.ellipse((60, 85, 180, 155), 150)
    elif kind == "bowl":
        pen.pieslice((20, 0, 220, 200), 0, 180, 255)
        pen.rectangle((90, 190, 150, 210), 255)
    elif kind == "cup":
        pen.rounded_rectangle((50, 50, 160, 200), 20, 255)
        pen.ellipse((130, 85, 210, 165), outline=255, width=18)
    else:
        pen.ellipse((80, 10, 160, 110), 255)
        pen.rounded_rectangle((108, 100, 132, 230), 10, 255)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
