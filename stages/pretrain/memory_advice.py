"""What makes a worker's memory small enough, each way reckoned before it is said; and what is not needed. No torch."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.pretrain.config import PretrainConfig, PretrainResources
from vitpipe.stages.pretrain.memory import terms
from vitpipe.stages.settings import micro_batch_of, passes_of
from vitpipe.stages.training.objective_costs import num_trained, recomputed_flops, train_flops

Change = Mapping[str, Any]


class MemoryAdvice:
    """A recipe whose worker needs more than its GPU has, or recomputes what it has room for."""

    def __init__(self, config: PretrainConfig, resources: PretrainResources, model: ModelSettings) -> None:
        self._config, self._resources, self._model = config, resources, model
        self._parameters = num_trained(config.objective, model)

    def notes(self, gpu_bytes: float) -> Iterator[str]:
        """Say what would fit a GPU of so many bytes, or that recomputing is needless on it."""
        needed = self._needed({})
        if needed > gpu_bytes:
            yield f"needs {_gb(needed)} GB of a GPU that has {_gb(gpu_bytes)}: {self._ways_out(gpu_bytes)}"
        elif self._resources.activation_checkpointing == "blocks":
            without = self._needed({"activation_checkpointing": "none"})
            if without <= gpu_bytes:
                yield (
                    f"activation_checkpointing blocks computes {self._again({}):.0%} more for nothing: without it a "
                    f"worker needs {_gb(without)} of its GPU's {_gb(gpu_bytes)} GB; leave it out"
                )

    def _ways_out(self, gpu_bytes: float) -> str:
        """All settings that suffice alone, else as many as it takes together, the cheapest first."""
        ways = [self._enough(steps, {}, gpu_bytes) for steps in self._steps()]
        alone = [self._told(way) for way in ways if way]
        if alone:
            return f"try {' or '.join(alone)}"
        taken: dict[str, Any] = {}
        for steps in self._steps():
            enough = self._enough(steps, taken, gpu_bytes)
            taken |= enough or steps[-1]
            if enough:
                return f"no setting alone is enough, try {self._told(self._relaxed(taken, gpu_bytes))}"
        least = f"with {self._told(taken)} it needs {_gb(self._needed(taken))}: " if taken else ""
        return f"{least}take a larger GPU"

    def _relaxed(self, taken: Change, gpu_bytes: float) -> Change:
        """Turn each setting back as far as the others allow."""
        for steps in self._steps():
            (name,) = steps[0]
            others = {key: value for key, value in taken.items() if key != name}
            if name in taken:
                taken = {**others, **(self._enough([{}, *steps], others, gpu_bytes) or {})}
        return taken

    def _steps(self) -> list[list[Change]]:
        """What can be turned down, and how far, from what costs nothing to what costs most."""
        config, resources = self._config, self._resources
        micro, ranks = micro_batch_of(config.batch_images, resources.micro_batch), resources.least_workers
        smaller = passes_of(config.batch_images, micro // 2)
        more = [ranks * 2**power for power in range(1, 11) if ranks * 2**power <= config.batch_images // micro]
        found: list[list[Change]] = [
            [{"micro_batch": one} for one in smaller],
            [{"activation_checkpointing": "blocks"}] if resources.activation_checkpointing == "none" else [],
            [{"zero": zero} for zero in range(resources.zero + 1, 4)] if ranks > 1 else [],
            [{"workers": count} for count in more] if resources.zero else [],
            [{"offload": "cpu"}] if resources.offload == "none" and resources.zero > 0 else [],
        ]
        return [steps for steps in found if steps]

    def _enough(self, steps: Sequence[Change], taken: Change, gpu_bytes: float) -> Change | None:
        return next((one for one in steps if self._needed({**taken, **one}) <= gpu_bytes), None)

    def _needed(self, changes: Change) -> float:
        resources = self._resources.model_copy(update=dict(changes))
        return sum(terms(self._config, resources, self._model, self._parameters, gpu=True).values())

    def _told(self, way: Change) -> str:
        """`activation_checkpointing blocks (22% more to compute)`."""
        words = {name: f"{name} {value}" for name, value in way.items()}
        if "activation_checkpointing" in words:
            words["activation_checkpointing"] += f" ({self._again(way):.0%} more to compute)"
        return " with ".join(words.values())

    def _again(self, way: Change) -> float:
        """Share of its FLOPs that a training computes once more."""
        objective, zero = self._config.objective, {"zero": self._resources.zero, **way}["zero"]
        return recomputed_flops(objective, self._model, zero) / train_flops(objective, self._model)


def _gb(bytes_: float) -> str:
    return f"{bytes_ / 1e9:.3g}"
