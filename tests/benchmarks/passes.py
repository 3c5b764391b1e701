"""What readers are made of: the files of mapped tars, the crop, the resize, and passes that fill a reused batch."""

import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

PX, BATCH = 224, 64
Pass = Callable[[], int]


def tars(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("train-*.tar"))


def files(folder: Path) -> Iterator[np.ndarray]:
    """The bytes of each image where its tar is mapped: the best that a peer could do."""
    for tar in tars(folder):
        index = json.loads(Path(tar).with_suffix(".index").read_text())
        mapped = np.memmap(tar, dtype=np.uint8, mode="r")
        for offset, size in zip(index["offset"], index["size"], strict=True):
            yield mapped[offset : offset + size]


def batches(make: Callable[[np.ndarray, torch.Tensor], None], folder: Path) -> Pass:
    """A pass that fills a reused batch, an image each."""
    batch = torch.empty((BATCH, 3, PX, PX), dtype=torch.uint8)

    def run() -> int:
        count = 0
        for count, data in enumerate(files(folder), start=1):
            make(data, batch[(count - 1) % BATCH])
        return count

    return run


def crop_of(height: int, width: int) -> tuple[int, int, int, int]:
    """torchvision's algorithm without its tensors."""
    for _ in range(10):
        area = height * width * random.uniform(0.08, 1)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return random.randint(0, height - h), random.randint(0, width - w), h, w
    return 0, 0, height, width


def resized_into(pixels: np.ndarray, to: torch.Tensor) -> None:
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(image, (PX, PX), mode="bilinear", antialias=True)[0]
    to.copy_(resized.flip(2) if random.random() < 0.5 else resized)


def resized_alone(pixels: np.ndarray) -> np.ndarray:
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    return torch.nn.functional.interpolate(image, (PX, PX), mode="bilinear", antialias=True)[0].numpy()
