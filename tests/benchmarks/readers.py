"""One reader in a process of its own: `python -m tests.benchmarks.readers NAME FOLDER`.

Says `ready`, then makes one pass over the set for each line it gets, and answers with images, CPU seconds and seconds.
Training crops of 224 px in batches of 64; uint8 unless the name says float.
"""

import json
import math
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

PX, BATCH = 224, 64
Pass = Callable[[], int]


def main() -> None:
    torch.set_num_threads(1)
    name, folder = sys.argv[1], Path(sys.argv[2])
    run = READERS[name](folder)
    print("ready", flush=True)
    for _ in sys.stdin:
        cpu, wall = time.process_time(), time.perf_counter()
        images = run()
        print(json.dumps([images, time.process_time() - cpu, time.perf_counter() - wall]), flush=True)


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
    made = wds.WebDataset(tars(folder), shardshuffle=False, empty_check=False).decode("pil").to_tuple("jpg", "cls")
    made = made.map_tuple(change, int).batched(BATCH)
    return lambda: sum(len(images) for images, _ in made)


def timm_uint8(folder: Path) -> Pass:
    """timm's transform for its prefetching loader, which leaves normalising to the GPU."""
    import webdataset as wds
    from timm.data import create_transform
    from timm.data.loader import fast_collate

    change = create_transform(PX, is_training=True, use_prefetcher=True, color_jitter=None, interpolation="bilinear")
    made = wds.WebDataset(tars(folder), shardshuffle=False, empty_check=False).decode("pil").to_tuple("jpg", "cls")
    made = made.map_tuple(change, int).batched(BATCH, collation_fn=fast_collate)
    return lambda: sum(len(images) for images, _ in made)


def torchvision_v2(folder: Path) -> Pass:
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms import v2

    change = v2.Compose([v2.RandomResizedCrop(PX, antialias=True), v2.RandomHorizontalFlip()])
    return batches(lambda data, to: to.copy_(change(decode_jpeg(torch.from_numpy(data), ImageReadMode.RGB))), folder)


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


def simplejpeg_tuned(folder: Path) -> Pass:
    """The best hand-tuned one: mapped tars, libjpeg-turbo straight to RGB, torch's uint8 resize, a reused batch."""
    import simplejpeg

    def make(data: np.ndarray, to: torch.Tensor) -> None:
        pixels = simplejpeg.decode_jpeg(data)
        top, left, h, w = crop_of(*pixels.shape[:2])
        resized_into(pixels[top : top + h, left : left + w], to)

    return batches(make, folder)


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


def litdata(folder: Path) -> Pass:
    from litdata import StreamingDataset
    from litdata.streaming.writer import BinaryWriter
    from torchvision.transforms import v2

    target = folder.parent / f"{folder.name}-litdata"
    if not target.exists():
        writer = BinaryWriter(str(target), chunk_bytes="64MB")
        for number, data in enumerate(files(folder)):
            writer[number] = {"image": data.tobytes()}
        writer.done()
        writer.merge(1)
    made = StreamingDataset(str(target), shuffle=True)
    change = v2.Compose([v2.RandomResizedCrop(PX, antialias=True), v2.RandomHorizontalFlip()])
    return decoded_by_torchvision(lambda: (sample["image"] for sample in made), change)


def mosaic(folder: Path) -> Pass:
    from streaming import MDSWriter, StreamingDataset
    from torchvision.transforms import v2

    target = folder.parent / f"{folder.name}-mds"
    if not target.exists():
        with MDSWriter(out=str(target), columns={"image": "bytes"}) as writer:
            for data in files(folder):
                writer.write({"image": data.tobytes()})
    made = StreamingDataset(local=str(target), shuffle=True, batch_size=BATCH, num_canonical_nodes=1)
    change = v2.Compose([v2.RandomResizedCrop(PX, antialias=True), v2.RandomHorizontalFlip()])
    return decoded_by_torchvision(lambda: (sample["image"] for sample in made), change)


def decoded_by_torchvision(samples: Callable[[], Iterator[bytes]], change: Callable) -> Pass:
    from torchvision.io import ImageReadMode, decode_jpeg

    batch = torch.empty((BATCH, 3, PX, PX), dtype=torch.uint8)

    def run() -> int:
        count = 0
        for count, data in enumerate(samples(), start=1):
            image = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
            batch[(count - 1) % BATCH].copy_(change(image))
        return count

    return run


def dali(folder: Path) -> Pass:
    """NVIDIA DALI on the CPU, decoding only the region."""
    from nvidia.dali import fn, pipeline_def, types

    encoded = [np.array(data) for data in files(folder)]

    @pipeline_def(batch_size=BATCH, num_threads=1, device_id=None, exec_async=False, exec_pipelined=False)
    def made():
        data = fn.external_source(lambda place: encoded[place.idx_in_epoch % len(encoded)], batch=False)
        images = fn.decoders.image_random_crop(data, device="cpu", random_area=[0.08, 1.0],
                                               random_aspect_ratio=[3 / 4, 4 / 3])  # fmt: skip
        images = fn.resize(images, size=[PX, PX], interp_type=types.INTERP_LINEAR, antialias=True)
        return fn.crop_mirror_normalize(images, dtype=types.UINT8, output_layout="CHW", mirror=fn.random.coin_flip())

    pipeline = made()
    pipeline.build()
    passes = max(1, len(encoded) // BATCH)

    def run() -> int:
        for _ in range(passes):
            pipeline.run()
        return passes * BATCH

    return run


def decode_alone(folder: Path) -> Pass:
    """libjpeg-turbo's whole decode, nothing after it."""
    import simplejpeg

    return batches(lambda data, to: simplejpeg.decode_jpeg(data), folder)


READERS: dict[str, Callable[[Path], Pass]] = {
    "vitpipe": vitpipe, "webdataset + PIL + torchvision, float": webdataset_default, "timm, uint8": timm_uint8,
    "PIL, resize(box=)": pil_box, "torchvision decode_jpeg + v2": torchvision_v2, "litdata + torchvision v2": litdata,
    "Mosaic streaming + torchvision v2": mosaic, "simplejpeg + torch, hand-tuned": simplejpeg_tuned,
    "NVIDIA DALI, region decode": dali, "limit: libjpeg-turbo decode alone": decode_alone,
}  # fmt: skip

if __name__ == "__main__":
    main()
