"""Measure a pretraining between two of its steps, on all ranks. The trajectory does not know of it."""

import math
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.images.batch import Batch
from vitpipe.stages.images.evaluate import EvalImages
from vitpipe.stages.preparation import EvalWay
from vitpipe.stages.pretrain.config import held_out, validation_split
from vitpipe.stages.pretrain.job import PretrainJob
from vitpipe.stages.training.config import FewshotSettings
from vitpipe.stages.training.engine import Engine
from vitpipe.stages.training.measure.evaluation import fewshot, named_right, validate
from vitpipe.stages.training.measure.fewshot import short_classes
from vitpipe.stages.training.objective.corruption import corrupted
from vitpipe.stages.training.objective.hidden_patches import hidden
from vitpipe.stages.training.objective.losses import loss_fn


class Evaluator:
    """What `config.evaluate` asks for. All ranks call it together."""

    def __init__(self, job: PretrainJob, engine: Engine, threads: int) -> None:
        self._job, self._engine, self._threads = job, engine, threads
        self._cache: Path = job.task.scratch / "images"

    def measure(self, step: int, samples_seen: int) -> dict[str, Any]:
        """A line of `evaluation.jsonl`: `step, samples_seen`, of the held-out split `loss` and `accuracy`, `watch`
        with the head's accuracy by data set, and `fewshot` with accuracies by probe and shots, and `short_classes`: how
        many have fewer images than shots."""
        settings = self._job.recipe.config.evaluate
        assert settings is not None  # who asks has found that it is time
        found: dict[str, Any] = {"step": step, "samples_seen": samples_seen}
        threads = self._threads
        if self._held_out:
            loss, prepare = loss_fn(self._job.recipe.config.objective), partial(prepared, self._job)
            labelled = self._job.recipe.config.objective.labelled
            values = validate(self._engine, self._held_out, loss, prepare, threads, classes=labelled)
            found |= {name: value if math.isfinite(value) else None for name, value in values.items()}
        for watched, images in zip(self._job.watch, self._watched, strict=True):
            share = named_right(self._engine, images, watched.outputs, threads)
            found.setdefault("watch", {})[watched.shards.name] = share
        for probe in self._job.probes:
            split = held_out(probe.splits)
            assert split is not None  # the driver has refused a probe without
            image_px = self._job.model.image_px
            scores = fewshot(self._engine, probe, split, image_px, self._few_shots(), self._cache, threads)
            by_shots = {str(shots): accuracy for shots, accuracy in scores.items()}
            found.setdefault("fewshot", {})[probe.name] = by_shots
            if short := self._short[probe.name]:
                found.setdefault("short_classes", {})[probe.name] = short
        return found

    @cached_property
    def _short(self) -> dict[str, dict[str, int]]:
        """How many classes of each probe have fewer images than shots, where some have."""
        settings, found = self._job.recipe.config.evaluate, {}
        assert settings is not None
        for probe in self._job.probes:
            labels_N = np.asarray(EvalImages.labels_of(probe, "train", self._cache), dtype=np.int64)
            counted = {
                str(few): short_classes(labels_N, probe.num_classes, few, False, "shots")
                for few in settings.fewshot.shots
            }
            found[probe.name] = {few: classes for few, classes in counted.items() if classes}
        return found

    @cached_property
    def _watched(self) -> list[EvalImages]:
        splits = [held_out(watched.shards.splits) for watched in self._job.watch]
        # the driver has refused a set without such a split
        return [self._images(one.shards, split) for one, split in zip(self._job.watch, splits, strict=True) if split]

    @cached_property
    def _held_out(self) -> list[EvalImages]:
        job = self._job
        others = bool(job.probes or job.watch)
        split = validation_split(job.recipe.config, [one.splits for one in job.shards], others)
        if split is None:
            return []
        return [self._images(one, split) for one in job.shards if one.splits.get(split)]

    def _images(self, shards: ShardSet, split: str) -> EvalImages:
        settings, labelled = self._job.recipe.config.evaluate, self._job.recipe.config.objective.labelled
        assert settings is not None
        way = EvalWay(settings.eval_resize, antialias=self._smooths(settings.antialias))
        return EvalImages(shards, split, self._job.model.image_px, way, self._cache, labelled=labelled)

    def _few_shots(self) -> FewshotSettings:
        settings = self._job.recipe.config.evaluate
        assert settings is not None
        return settings.fewshot.model_copy(update={"antialias": self._smooths(settings.fewshot.antialias)})

    def _smooths(self, asked: bool | None) -> bool:
        """Whether images are low-passed before they shrink: as asked, or as the training images are."""
        return self._job.recipe.config.augment.antialias if asked is None else asked


def prepared(job: PretrainJob, batch: Batch) -> Batch:
    """What the objective makes of images: without labels, a question about patches that are corrupted or hidden."""
    objective, seed = job.recipe.config.objective, job.recipe.config.seed
    if objective.labelled:
        return batch
    patch_px = job.model.sizes.patch_px
    if objective.kind == "mae":
        return hidden(batch, patch_px, objective.visible(job.model.grid**2), seed)
    return corrupted(batch, patch_px, objective.patch_target, seed)
