"""One reader in a process of its own: `python -m tests.benchmarks.readers NAME FOLDER`.

Says `ready`, then makes one pass over the set for each line it gets, and answers with images, CPU seconds and seconds.
Training crops of 224 px in batches of 64; uint8 unless the name says float.
"""

import json
import random
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from tests.benchmarks.decoders import DECODERS, pixels_of
from tests.benchmarks.loaders import dali, grain_map, litdata, mosaic
from tests.benchmarks.passes import BATCH, PX, Pass, batches, crop_of, files, resized_alone, resized_into, tars

COMPARED = 12
"""Images whose crops are compared with Pillow's before a reader is measured."""


def main() -> None:
    torch.set_num_threads(1)
    name, folder = sys.argv[1], Path(sys.argv[2])
    try:
        run = READERS[name](folder)
    except Exception as error:  # whatever a library raises that lacks something here
        print("lacks", type(error).__name__, str(error).partition("\n")[0][:200], flush=True)
        raise
    print("ready", flush=True)
    for _ in sys.stdin:
        cpu, wall = time.process_time(), time.perf_counter()
        images = run()
        print(json.dumps([images, time.process_time() - cpu, time.perf_counter() - wall]), flush=True)


def vitpipe(folder: Path) -> Pass:
    from vitpipe.stages.images import decoded_split
    from vitpipe.stages.images.config import AugmentSettings
    from vitpipe.stages.images.train import TrainImages
    from vitpipe.stages.record import load_artifact

    decoded_split.DECODED_BYTES = 0  # as for a set that does not fit into memory
    images = TrainImages(load_artifact(f"file://{folder}"), "train", PX, AugmentSettings(), 0, folder.parent / "cache")
    starts = iter(range(0, 10**9, BATCH))
    passes = images.num_images // BATCH

    def run() -> int:
        for _ in range(max(1, passes)):
            images.micro_batch(next(starts), min(BATCH, images.num_images))
        return max(1, passes) * min(BATCH, images.num_images)

    return run


def webdataset_default(folder: Path) -> Pass:
    """What the documentation of webdataset and of timm's recipes shows: PIL and torchvision, float out."""
    import webdataset as wds
    from torchvision import transforms as t

    normalize = t.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    change = t.Compose([t.RandomResizedCrop(PX), t.RandomHorizontalFlip(), t.ToTensor(), normalize])
    made = (
        wds.WebDataset(tars(folder), shardshuffle=False, empty_check=False)
        .decode("pil")
        .to_tuple("jpg;png;webp", "cls")
    )
    made = made.map_tuple(change, int).batched(BATCH)
    return lambda: sum(len(images) for images, _ in made)


def timm_uint8(folder: Path) -> Pass:
    """timm's transform for its prefetching loader, which leaves normalising to the GPU."""
    import webdataset as wds
    from timm.data import create_transform
    from timm.data.loader import fast_collate

    change = create_transform(PX, is_training=True, use_prefetcher=True, color_jitter=None, interpolation="bilinear")
    made = (
        wds.WebDataset(tars(folder), shardshuffle=False, empty_check=False)
        .decode("pil")
        .to_tuple("jpg;png;webp", "cls")
    )
    made = made.map_tuple(change, int).batched(BATCH, collation_fn=fast_collate)
    return lambda: sum(len(images) for images, _ in made)


def torchvision_v2(folder: Path) -> Pass:
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import v2

    change = v2.Compose([v2.RandomResizedCrop(PX, antialias=True), v2.RandomHorizontalFlip()])
    return batches(lambda data, to: to.copy_(change(decode_image(torch.from_numpy(data), ImageReadMode.RGB))), folder)


def by_decoder(name: str) -> Callable[[Path], Pass]:
    """The best that can be done with a decoder: mapped tars, its own crop, torch's uint8 resize, a reused batch."""

    def reader(folder: Path) -> Pass:
        decoder = DECODERS[name]()
        print("pixels", pixels_of(decoder, islice(files(folder), COMPARED), resized_alone), flush=True)

        def make(data: np.ndarray, to: torch.Tensor) -> None:
            height, width, cut = decoder(data)
            resized_into(cut(*crop_of(height, width)), to)

        return batches(make, folder)

    return reader


def pil_box(folder: Path) -> Pass:
    """Pillow, whose resize takes the box of the crop."""
    import io

    from PIL import Image

    def make(data: np.ndarray, to: torch.Tensor) -> None:
        image = Image.open(io.BytesIO(data))
        top, left, h, w = crop_of(image.height, image.width)
        small = image.resize((PX, PX), Image.Resampling.BILINEAR, box=(left, top, left + w, top + h))
        pixels = torch.from_numpy(np.asarray(small)).permute(2, 0, 1)
        to.copy_(pixels.flip(2) if random.random() < 0.5 else pixels)

    return batches(make, folder)


def decode_alone(folder: Path) -> Pass:
    """libjpeg-turbo's whole decode, nothing after it."""
    import simplejpeg

    return batches(lambda data, to: simplejpeg.decode_jpeg(data), folder)


READERS: dict[str, Callable[[Path], Pass]] = {
    "vitpipe": vitpipe, "webdataset + PIL + torchvision, float": webdataset_default, "timm, uint8": timm_uint8,
    "PIL, resize(box=)": pil_box, "torchvision decode_image + v2": torchvision_v2, "litdata + torchvision v2": litdata,
    "Mosaic streaming + torchvision v2": mosaic, "Grain + simplejpeg + torch": grain_map,
    "NVIDIA DALI, region decode": dali, "limit: libjpeg-turbo decode alone": decode_alone,
    **{name: by_decoder(name) for name in DECODERS},
}  # fmt: skip

if __name__ == "__main__":
    main()
