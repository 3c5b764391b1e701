"""Data loaders with ways of their own to store or to walk a set. Each is a pass over training crops of 224 px."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from tests.benchmarks.passes import BATCH, PX, Pass, crop_of, files, resized_into


def grain_map(folder: Path) -> Pass:
    """Grain's dataset of arrays in memory, shuffled, decoded by simplejpeg and batched by Grain."""
    import grain
    import simplejpeg

    def made(data: np.ndarray) -> np.ndarray:
        pixels, to = simplejpeg.decode_jpeg(data), torch.empty((3, PX, PX), dtype=torch.uint8)
        top, left, h, w = crop_of(*pixels.shape[:2])
        resized_into(pixels[top : top + h, left : left + w], to)
        return to.numpy()

    encoded = [np.array(data) for data in files(folder)]
    chain = grain.MapDataset.source(encoded).shuffle(seed=0).map(made).batch(BATCH)
    return lambda: sum(len(batch) for batch in chain.to_iter_dataset(grain.ReadOptions(num_threads=0)))


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
