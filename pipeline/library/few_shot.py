"""The paper's few-shot protocol as a function: the stage `evaluate` itself, called here."""

import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.library.doors import cpus, doors
from vitpipe.pipeline.library.models import lend
from vitpipe.stages.artifacts import Score, ShardSet, deviation
from vitpipe.stages.contract import Inputs
from vitpipe.stages.evaluate.config import EvaluateConfig, EvaluateResources
from vitpipe.stages.evaluate.run import run
from vitpipe.stages.images.named_shards import named_shards
from vitpipe.stages.report.results import few_in, percent


@dataclass(frozen=True, repr=False)
class FewShotScore:
    """Accuracy of a ridge regression on frozen features, as a fraction in [0, 1]."""

    value: float
    """Mean over seeds, with the first number of shots."""
    per_seed: tuple[float, ...]
    by_shots: Mapping[int, tuple[float, ...]]
    """Accuracy of each seed, by training images of a class."""
    benchmark: str
    num_test: int
    protocol: Mapping[str, Any]
    """How it was measured, as a Score says it."""
    short_by_shots: Mapping[int, int]
    """How many classes have fewer training images than each number of shots; all of theirs were taken."""

    @property
    def std(self) -> float | None:
        """Sample standard deviation over seeds; None of a single one."""
        return deviation(self.per_seed)

    def __repr__(self) -> str:
        """A line for each number of shots."""
        lines, split = [], self.protocol.get("split", "test")
        for shots, values in self.by_shots.items():
            seeds = f"{len(values)} seed{'s' if len(values) > 1 else ''}"
            mean = percent(statistics.fmean(values), deviation(values))
            drawn = "1 shot" if shots == 1 else f"{shots} shots"
            fewer = f", {few_in(short)}" if (short := self.short_by_shots[shots]) else ""
            lines.append(f"{self.benchmark}, {drawn}: {mean} ({seeds}, {self.num_test} {split} images{fewer})")
        return "\n".join(lines)


def fewshot(
    model: Any,
    data: ShardSet | str | Path,
    shots: int | Sequence[int] = 5,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    batch_images: int = 64,
    **fields: Any,
) -> FewShotScore:
    """Score frozen features by the paper's few-shot protocol (section 4.1): the numbers of a node `evaluate`.

    `model` is a loaded model, as it is now, or a place as for `load`; `data` an ingested set: its node's folder or URI.
    For each seed `shots` training images a class are drawn, a ridge regression is fitted on their features, and all of
    the test split is scored. Other `fields` are those of `evaluate`: `split`, `l2`, `image_px`, `eval_resize`, ... All
    CPU cores that this process may use are used.

    Of a class with fewer images all are taken; with `strict_shots=True` that is a StageError. UsageError for a field,
    set or model that does not fit.
    """
    several = (shots,) if isinstance(shots, int) else tuple(shots)
    try:
        config = EvaluateConfig.model_validate({"method": "fewshot", "shots": several, "seeds": tuple(seeds), **fields})
        resources = EvaluateResources(batch_images=batch_images, cpus_per_task=cpus())
    except ValidationError as error:
        raise wrong_fields("score few shots", error) from error
    shards = named_shards(data, "evaluate on")
    from vitpipe.stages.predict.ready_model import same_threads  # torch, only where features are computed

    with same_threads(), tempfile.TemporaryDirectory(prefix="vitpipe-fewshot-") as folder:
        weights = lend(model, Path(folder) / "model")
        ctx = doors(Path(folder), "fewshot", resources)
        score = run(config, Inputs({"data": (shards,), "weights": (weights,)}), ctx)
        return _result(several, score, json.loads(ctx.out.node.read(score.file("score.json").at)))


def wrong_fields(asked: str, error: ValidationError) -> UsageError:
    """Say in one paragraph which fields are wrong."""
    found = "; ".join(
        f"{'.'.join(map(str, one['loc'])) or 'together'}: {one['msg'].removeprefix('Value error, ')}"
        for one in error.errors()
    )
    return UsageError(asked, found, "`vitpipe schema` has each field with its sentence")


def _result(several: Sequence[int], score: Score, content: Mapping[str, Any]) -> FewShotScore:
    by_shots = {shots: tuple(content["by_shots"][str(shots)]) for shots in several}
    short = {shots: int(content["short_by_shots"][str(shots)]) for shots in several}
    return FewShotScore(score.value, score.per_seed, by_shots, score.benchmark, score.num_test, score.protocol, short)
