"""How many images a second the reader makes at so many threads, and how long a training step waits for them."""

import time
from pathlib import Path

from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.gpu_check.drawn import PhotoSize, drawn_shards
from vitpipe.stages.gpu_check.findings import Findings, Way
from vitpipe.stages.gpu_check.machine import cores
from vitpipe.stages.gpu_check.ranks import one_rank
from vitpipe.stages.gpu_check.training import B16, L16, SHRUNK, Setting, build
from vitpipe.stages.images.config import AugmentSettings
from vitpipe.stages.images.native.compilation import NotBuilt
from vitpipe.stages.images.native.compilation import build as build_extension
from vitpipe.stages.images.train import TrainImages
from vitpipe.stages.training.loop import LoopPlan, train
from vitpipe.stages.training.objective.losses import loss_fn

PHOTOGRAPH = PhotoSize(500, 375, 1.46)
THREADS = (1, 4, 8, 16, 32)
AUGMENTED = {
    "crop and flip": AugmentSettings(),
    "RandAugment(2, 15), Mixup": AugmentSettings.model_validate(
        {"randaugment": {"kind": "big_vision", "layers": 2, "magnitude": 15}, "mixup": 0.2}
    ),
}


def run(way: Way, findings: Findings) -> None:
    """Read at several numbers of threads, then train with all cores reading."""
    try:
        findings.note(f"the reader's extension: {build_extension().name}")
    except NotBuilt as error:
        findings.note(f"the reader has no extension, images are decoded whole: {error}")
    size = PhotoSize(48, 40, 1.46) if way.shrunk else PHOTOGRAPH
    shards = drawn_shards(way.scratch, 16 if way.shrunk else 1536, size, different=8 if way.shrunk else 48)
    here = [threads for threads in THREADS if threads <= cores()]
    here = here[:1] if way.shrunk else [*here, *([cores()] if cores() not in here else [])]
    for name, augment in list(AUGMENTED.items())[: 1 if way.shrunk else None]:
        for threads in here:
            speed = read(shards, way.scratch / "cache", augment, threads, way)
            findings.row({"reading": f"{size.width} x {size.height}, {name}", "threads": threads, "images/s": speed})
    for setting in [Setting(SHRUNK, 4, "fp32")] if way.shrunk else [Setting(B16, 128), Setting(L16, 128)]:
        if way.shrunk or findings.left() > 8:
            waiting(way, findings, setting, shards)
        else:
            findings.left_out(f"the share of waiting of {setting.model.name}")


def images_of(shards: ShardSet, cache: Path, augment: AugmentSettings, setting: Setting, pinned: bool) -> TrainImages:
    """Open the reader as a pretraining does."""
    classes = setting.settings.classes if augment.mixes else None
    told = {"pinned": pinned, "batch_images": setting.micro_batch, "multi_hot": classes}
    return TrainImages(shards, "train", setting.model.image_px, augment, 0, cache=cache, **told)  # type: ignore[arg-type]


def read(shards: ShardSet, cache: Path, augment: AugmentSettings, threads: int, way: Way) -> float:
    """Measure images a second of so many threads, after a first micro-batch that finds its shard."""
    setting = Setting(SHRUNK, 4) if way.shrunk else Setting(B16, 128)
    images, count = images_of(shards, cache, augment, setting, way.cuda), setting.micro_batch
    ranges = [(number * count, count) for number in range(2 if way.shrunk else 2000)]
    stream = images.stream(ranges, threads)
    next(stream)
    begun, made = time.perf_counter(), 0
    for batch in stream:
        made += len(batch.images_BCHW)
        if time.perf_counter() - begun > 1.5:
            break
    seconds = time.perf_counter() - begun
    stream.close()  # type: ignore[attr-defined]
    return made / seconds


def waiting(way: Way, findings: Findings, setting: Setting, shards: ShardSet, threads: int | None = None) -> None:
    """Train from the shards: the share of the steps that waits for images, after the first ones."""
    reading, steps = threads or cores(), 3 if way.shrunk else 24
    with one_rank(way.device) as rank:
        trained = build(setting, rank, way.scratch)
        images = images_of(shards, way.scratch / "cache", AUGMENTED["crop and flip"], setting, way.cuda)
        stream = images.stream(trained.engine.sampler.ranges(0, steps), reading)
        trained.steps(1 if way.shrunk else 3)
        alone, waited = trained.seconds(1 if way.shrunk else 5), 0.0
        plan = LoopPlan(0, 0, steps, lambda step: 1e-5, lambda step: step == steps // 3, lambda: None)
        begun = time.perf_counter()
        for made in train(trained.engine, stream, loss_fn(setting.config.objective), plan):
            if made.step <= steps // 3:
                begun = time.perf_counter()
            else:
                waited += made.data_wait_seconds
        seconds = time.perf_counter() - begun
    count = steps - steps // 3
    findings.row(
        {
            "training": f"{setting.model.name} x {setting.micro_batch}, {setting.precision}",
            "reading threads": reading,
            "images/s": setting.micro_batch * count / seconds,
            "without reading": setting.micro_batch / alone,
            "share that waits": round(waited / seconds, 4),
        }
    )
