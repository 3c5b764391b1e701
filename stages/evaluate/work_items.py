"""What an evaluation sends to machines, and what comes back. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vitpipe.stages.artifacts import File, Score, ShardSet, Weights
from vitpipe.stages.contract import Out, TaskContext
from vitpipe.stages.evaluate.config import EvaluateConfig
from vitpipe.stages.preparation import EvalWay

Indices = npt.NDArray[np.int64]
Draws = Mapping[int, Mapping[int, Indices]]
"""By seed and number of shots, 0 for all: numbers of training images, ascending within a class."""
Drawn = tuple[Draws, Mapping[int, Indices], Mapping[int, int]]
"""With the dev images of each seed, where penalties are compared on some, and how many classes have fewer training
images than each number of shots."""


AS_THE_AUTHORS = EvalWay("resize_crop", antialias=False)
"""Their few-shot: squared, without a low-pass, and the centre cut."""


@dataclass(frozen=True)
class EvaluateTask:
    """What every task of an evaluation knows. Before the choice, `data` has no files but those of `train`."""

    config: EvaluateConfig
    data: ShardSet
    weights: Weights | Score | None
    batch_images: int
    cpus: int
    context: TaskContext
    way: EvalWay = AS_THE_AUTHORS
    """How an image gets to the size asked for."""

    def __str__(self) -> str:
        return f"draw-{self.config.method}"

    @property
    def image_px(self) -> int | None:
        """Side of the input image: the one asked for, else the weights' own; None where there is neither."""
        return side_of(self.config, self.weights)


def side_of(config: EvaluateConfig, weights: Weights | Score | None) -> int | None:
    """Side of the input image: the one asked for, else the weights' own; None where there is neither."""
    model = weights.model if weights else None
    return config.image_px or (model.image_px if model else None)


@dataclass(frozen=True)
class ExtractTask:
    """Some images of one split on their way through a frozen model."""

    about: EvaluateTask
    split: str
    seed: int
    """Initialises a model that is untrained."""
    rows: Indices
    out: Out
    """Where the features are left."""

    def __str__(self) -> str:
        return f"features-{self.split}-{self.rows[0]}"


@dataclass(frozen=True)
class FeaturePart:
    """Features of some images of one split, in the store."""

    uri: str
    """The folder that `file` lies in."""
    file: File
    rows: Indices
    """Numbers of the images in the split."""
    images_per_second: float
    """Speed of the model alone, images already decoded."""

    @property
    def reference(self) -> dict[str, Any]:
        """What `score.json` says of it."""
        return {"uri": self.uri, "at": self.file.at, "sha256": self.file.sha256, "images": len(self.rows)}


Features = tuple[FeaturePart, ...]
"""Everything that was extracted of one split of one data set by one model."""


@dataclass(frozen=True)
class FitTask:
    """Probes of some seeds on features: to choose a penalty, or, given features of the scored split, to be scored."""

    about: EvaluateTask
    seeds: tuple[int, ...]
    draws: Draws
    dev: Mapping[int, Indices]
    """By seed: training images that no support has, for comparing penalties; empty where none are compared."""
    train: Features
    test: Features | None = None
    l2: Mapping[int, Mapping[int, float]] | None = None
    """linear: the committed choice, by seed and shots."""

    def __str__(self) -> str:
        phase = "choose" if self.test is None else "score"
        return "-".join([phase, self.about.config.method, *(f"seed{seed}" for seed in self.seeds)])


@dataclass(frozen=True)
class HeadTask:
    """The weights' own head on the features of the scored split."""

    about: EvaluateTask
    test: Features

    def __str__(self) -> str:
        return self.about.config.method
