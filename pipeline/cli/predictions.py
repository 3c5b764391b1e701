"""Predictions as a command gives them: weights found and opened, images answered one by one. Torch only when run."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from vitpipe.pipeline.store.named_weights import find_weights
from vitpipe.stages.artifacts import Score, Weights
from vitpipe.stages.predict.image_files import Prediction, find_images


@dataclass
class Answers:
    """Iterate once to get each image's answer as it comes; afterwards all of them are in `given`."""

    weights: Weights | Score | Path
    images: list[Path]
    top: int
    head: str = ""
    """softmax or sigmoid, known once the weights are open."""
    given: list[Prediction] = field(default_factory=list)

    @classmethod
    def of(cls, weights: str, images: Sequence[Path], top: int, tell: Callable[[str], None]) -> Self:
        """Find what is named; `tell` is as for `find_run`. UsageError for what is not there."""
        return cls(find_weights(weights, tell), find_images(images), top)

    def __iter__(self) -> Iterator[Prediction]:
        # torch is imported only where something is predicted
        from vitpipe.stages.predict.opened_weights import open_weights
        from vitpipe.stages.predict.top_classes import predict

        with tempfile.TemporaryDirectory(prefix="vitpipe-predict-") as scratch:
            opened = open_weights(self.weights, Path(scratch))
        self.head = opened.manner.head
        for answer in predict(opened, opened.manner, self.images, self.top):
            self.given.append(answer)
            yield answer

    @property
    def unreadable(self) -> list[tuple[Path | str, str]]:
        """Images that gave no answer, each with the reason."""
        return [(one.image, one.reason) for one in self.given if one.reason is not None]

    def to_json(self) -> dict[str, Any]:
        """`predictions`, those that could be made, and how probabilities are meant; `unreadable` apart."""
        made = []
        for one in self.given:
            if one.reason is None:
                classes = [{"label": label, "probability": probability} for label, probability in one.classes]
                made.append({"image": str(one.image), "classes": classes})
        unreadable = [{"image": str(path), "reason": reason} for path, reason in self.unreadable]
        return {"predictions": made, "head": self.head, **({"unreadable": unreadable} if unreadable else {})}
