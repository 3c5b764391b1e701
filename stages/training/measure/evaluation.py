"""A model looked at while it trains: its loss and accuracy on held-out images, and what a ridge makes of its features.

All ranks share the images and make equally many passes; nothing here draws a random number. Shapes: B images of a
batch, N support images, M test images of this rank, K classes, D features.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.images.batch import Batch
from vitpipe.stages.images.evaluate import EvalImages
from vitpipe.stages.preparation import EvalWay
from vitpipe.stages.training import agree
from vitpipe.stages.training.config import FewshotSettings
from vitpipe.stages.training.engine import Engine
from vitpipe.stages.training.measure.fewshot import Indices, draw
from vitpipe.stages.training.measure.ridge import Ridge
from vitpipe.stages.training.objective.losses import Loss

Prepare = Callable[[Batch], Batch]
"""What the objective makes of a batch before the model sees it."""


def validate(
    engine: Engine, sets: Sequence[EvalImages], loss: Loss, prepare: Prepare, threads: int, *, classes: bool
) -> dict[str, float]:
    """The mean `loss` over all images of the sets; for a model of `classes` also `accuracy`, the share of images whose
    highest output is one of their classes."""
    sums = torch.zeros(3, dtype=torch.float64, device=engine.device)
    for images in sets:
        for batch, outputs in answers(engine, images, prepare, threads):
            labels = batch.labels.to(engine.device)
            if classes and labels.ndim == 2:  # several of an image; the model may have more than the set
                labels = F.pad(labels, (0, outputs.shape[1] - labels.shape[1]))
            right = _right(outputs, labels).double().sum() if classes else torch.zeros((), device=engine.device)
            sums += torch.stack([loss(outputs, labels).double().sum(), right, right.new_tensor(len(labels))])
    dist.all_reduce(sums)
    total, right_images, images_seen = sums.tolist()
    return {"loss": total / images_seen} | ({"accuracy": right_images / images_seen} if classes else {})


def named_right(engine: Engine, images: EvalImages, outputs: Sequence[int], threads: int) -> float:
    """The share of images whose highest output is right; `outputs` says which of the model's each of their classes is.

    Of an image with several classes each is right, and one without any does not count (ReaL's rule).
    """
    sums = torch.zeros(2, dtype=torch.float64, device=engine.device)
    theirs_K = torch.tensor(outputs, device=engine.device)
    for batch, logits_BO in answers(engine, images, lambda batch: batch, threads):
        labels, named_B = batch.labels.to(engine.device), logits_BO.argmax(dim=1)
        if labels.ndim == 1:
            labels = F.one_hot(labels, len(outputs))
        right_BO = labels.new_zeros(logits_BO.shape).index_copy_(1, theirs_K, labels)
        counted_B = right_BO.any(dim=1)
        hits_B = right_BO.gather(1, named_B[:, None])[:, 0] > 0
        sums += torch.stack([hits_B.double().sum(), counted_B.double().sum()])
    dist.all_reduce(sums)
    hits, counted = sums.tolist()
    return hits / counted if counted else 0.0


def fewshot(
    engine: Engine, probe: ShardSet, split: str, image_px: int, settings: FewshotSettings, cache: Path, threads: int
) -> dict[int, float]:
    """Accuracy on a probe's images of `split` by shots, the mean over seeds: the authors' ridge on frozen features.

    As `evaluate` with method fewshot, in the precision of the training. Each rank fits the same ridges, on the
    features of all, and names its own share of the test images.
    """
    labels_N: Indices = np.asarray(EvalImages.labels_of(probe, "train", cache), dtype=np.int64)
    draws = {seed: draw(labels_N, probe.num_classes, seed, settings.shots) for seed in settings.seeds}
    drawn = np.unique(np.concatenate([rows for supports in draws.values() for rows in supports.values()]))
    way = EvalWay(settings.eval_resize, antialias=bool(settings.antialias))
    support = EvalImages(probe, "train", image_px, way, cache, keep=drawn)
    test = EvalImages(probe, split, image_px, way, cache)
    own_ND, _ = _features(engine, support, threads)
    support_ND = np.concatenate(agree.each(lambda: own_ND))
    test_MD, test_labels_M = _features(engine, test, threads)
    right = torch.zeros(len(settings.seeds), len(settings.shots), dtype=torch.float64)
    for row, supports in enumerate(draws.values()):
        for column, shots in enumerate(settings.shots):
            rows = np.searchsorted(drawn, supports[shots])
            ridge = Ridge.fit(support_ND[rows], labels_N[supports[shots]], probe.num_classes)
            if len(test_MD):
                right[row, column] = float((ridge.predict(test_MD, settings.l2) == test_labels_M).sum())
    summed = right.to(engine.device)
    dist.all_reduce(summed)
    accuracies = (summed / test.num_images).T.tolist()
    return {shots: statistics.fmean(of) for shots, of in zip(settings.shots, accuracies, strict=True)}


def answers(
    engine: Engine, images: EvalImages, prepare: Prepare, threads: int, method: str = "forward"
) -> Iterator[tuple[Batch, Tensor]]:
    """What the model's `method` says of this rank's share, batch by batch, without dropout and gradients.

    A rank whose share is a batch shorter makes a pass of zeros for the others to meet under ZeRO 3.
    """
    sampler, passes = engine.sampler, 0
    most = -(-images.num_images // sampler.world_size)
    with engine.evaluating(method):
        for batch in images.batches(sampler.micro_batch, sampler.rank, sampler.world_size, threads):
            asked = prepare(batch)
            hints = (hint.to(engine.device) for hint in asked.hints)
            yield asked, engine.forward(asked.images_BCHW.to(engine.device), *hints)
            passes += 1
        for _ in range(-(-most // sampler.micro_batch) - passes):
            engine.forward(torch.zeros(1, 3, images.image_px, images.image_px, dtype=torch.uint8).to(engine.device))


def _features(engine: Engine, images: EvalImages, threads: int) -> tuple[np.ndarray, Indices]:
    found = [
        (outputs.float().cpu().numpy(), batch.labels.numpy())
        for batch, outputs in answers(engine, images, lambda batch: batch, threads, "features")
    ]
    features_BD, labels_B = zip(*found, strict=True) if found else ((np.empty((0, 0), np.float32),), (np.empty(0),))
    return np.concatenate(features_BD), np.concatenate(labels_B).astype(np.int64)


def _right(outputs_BK: Tensor, labels: Tensor) -> Tensor:
    named_B = outputs_BK.argmax(dim=1)
    if labels.ndim == 2:
        return labels.gather(1, named_B[:, None])[:, 0] > 0
    return named_B == labels
