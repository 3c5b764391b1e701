"""Golden resume on the device: a pretraining whose rank is killed and started again equals one that nothing happens to.

To the last bit, of every loss and every number of the last checkpoint; on another number of ranks and at another ZeRO
stage within rounding. The stage's own `run`, its loop and its checkpoints, with ranks that this check starts.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch

from vitpipe.infra.errors import Stopped
from vitpipe.infra.work import Rank
from vitpipe.stages.artifacts import ShardSet
from vitpipe.stages.contract import Inputs, Out, StageContext
from vitpipe.stages.gpu_check.drawn import PhotoSize, drawn_shards
from vitpipe.stages.gpu_check.findings import Findings, Way
from vitpipe.stages.gpu_check.golden import Golden, compare_bits, compare_near, golden
from vitpipe.stages.gpu_check.ranks import OwnFence, RankPlacing, doors, gang
from vitpipe.stages.pretrain.config import PretrainConfig, PretrainResources
from vitpipe.stages.pretrain.run import run as pretrain

STEPS, EVERY, BATCH, MICRO = 6, 2, 24, 8
KILLED_AT = 4
"""The question, one a step, at which the rank dies: after step 3 has begun, with step 2 committed."""
PATIENCE_S = 45.0
"""A comparison of two or three starts is not begun with less."""
RECIPE: dict[str, Any] = {
    "model": {"image_px": 32, "dropout": 0.1, "stochastic_depth": 0.1},
    "optimizer": {"peak_lr": 3e-3, "clip_norm": 1.0},
    "augment": {"mixup": 0.2, "cutmix": 1.0},
    "batch_images": BATCH,
    "total": f"{STEPS} steps",
}
SIZES = {
    False: {"layers": 4, "width": 128, "mlp": 256, "heads": 2, "patch_px": 8},
    True: {"layers": 2, "width": 32, "mlp": 64, "heads": 2, "patch_px": 16},
}


@dataclass(frozen=True)
class TrainingWay:
    """How one training is made."""

    precision: str
    zero: int = 1
    ranks: int = 1
    deterministic: bool = True


class Trainings:
    """Trainings of one recipe on one set of shards, in a folder."""

    def __init__(self, way: Way, shards: ShardSet) -> None:
        self._way, self._shards, self._count = way, shards, 0

    def whole(self, plan: TrainingWay) -> Golden:
        """Train without disturbance."""
        return self._golden(self._node(), plan, self._placing(plan))

    def killed(self, plan: TrainingWay) -> Golden:
        """Kill the first rank with SIGKILL, and go on from what was committed. RuntimeError if nobody died."""
        node = self._node()
        try:
            self._golden(node, plan, self._placing(plan), fence=OwnFence(kill_at=KILLED_AT))
        except Exception as error:
            if not any(word in str(error) for word in ("-9", "peer", "onnection")):
                raise
        else:
            raise RuntimeError("the rank that was to be killed came to its end")
        return self._golden(node, plan, self._placing(plan), "a2", ("a1",))

    def moved(self, first: TrainingWay, then: TrainingWay) -> Golden:
        """Stop half-way, and go on another way."""
        node = self._node()
        try:
            self._golden(node, first, self._placing(first), fence=OwnFence(stop_at=STEPS // 2))
        except Stopped:
            return self._golden(node, then, self._placing(then), "a2", ("a1",))
        raise RuntimeError("the training that was to be stopped came to its end")

    def _node(self) -> str:
        self._count += 1
        return f"training-{self._count}"

    def _placing(self, plan: TrainingWay) -> RankPlacing:
        gpus = torch.cuda.device_count() if self._way.cuda else 0
        backend = "nccl" if 0 < plan.ranks <= gpus else "gloo"
        return RankPlacing(self._way.device, backend, plan.deterministic)

    def _golden(
        self,
        node: str,
        plan: TrainingWay,
        placing: RankPlacing,
        attempt: str = "a1",
        earlier: tuple[str, ...] = (),
        fence: OwnFence | None = None,
    ) -> Golden:
        recipe = {**RECIPE, "precision": plan.precision}
        recipe["model"] = {**RECIPE["model"], "variant": SIZES[self._way.shrunk]}
        told = {"micro_batch": MICRO, "checkpoint_every": f"{EVERY} steps", "workers": plan.ranks, "zero": plan.zero}
        task = doors(self._way.scratch, node, attempt, earlier, fence)
        ctx = StageContext(
            **{name: getattr(task, name) for name in task.__dataclass_fields__},
            cluster=_OwnRanks(placing),
            shared=_Nobody(),
            resources=PretrainResources.model_validate(told),
        )
        made = pretrain(PretrainConfig.model_validate(recipe), Inputs({"shards": (self._shards,)}), ctx)
        return golden(ctx.out, made)


def run(way: Way, findings: Findings) -> None:
    """Kill and resume at the ways that people use, then move between ways."""
    images, size = (64, PhotoSize(48, 40, 1.46))
    trainings = Trainings(way, drawn_shards(way.scratch, images, size))
    first = [TrainingWay("fp32")] if way.shrunk else [TrainingWay("bf16"), TrainingWay("fp32")]
    kept: dict[TrainingWay, Golden] = {}
    _kill(findings, trainings, first, kept)
    _move(way, findings, trainings, kept)
    if way.cuda:
        _kill(findings, trainings, [TrainingWay("bf16", zero=0), TrainingWay("bf16", zero=2)], kept)
        _as_shipped(findings, trainings)
    findings.note(f"a rank of {STEPS} steps is killed in step {KILLED_AT}; kernels are told to be deterministic")


def _kill(findings: Findings, trainings: Trainings, plans: list[TrainingWay], kept: dict[TrainingWay, Golden]) -> None:
    for plan in plans:
        if kept and findings.left() < PATIENCE_S:
            findings.left_out(f"kill and resume at {_named(plan)}")
            continue
        kept[plan] = trainings.whole(plan)
        compare_bits(findings, f"killed and resumed, {_named(plan)}", trainings.killed(plan), kept[plan])


def _move(way: Way, findings: Findings, trainings: Trainings, kept: Mapping[TrainingWay, Golden]) -> None:
    """Half of the steps one way and half another: ZeRO 1 to 0, and one rank to two, which may share a GPU by gloo."""
    plan = TrainingWay("fp32")
    if plan not in kept:
        findings.left_out("on another number of ranks")
        return
    gpus = torch.cuda.device_count() if way.cuda else 0
    if findings.left() > 30 or way.shrunk:
        ways = [("ZeRO 1, then ZeRO 0", replace(plan, zero=0))] if way.cuda else []
        meet = "nccl" if gpus > 1 else "gloo, on one GPU" if gpus else "gloo"
        for name, then in [*ways, (f"one rank, then two ({meet})", replace(plan, ranks=2))]:
            try:
                found = trainings.moved(plan, then)
            except Exception as error:
                if then.ranks == 1 or gpus != 1:
                    raise
                # no way that anybody trains: gloo need not know what NCCL does with a GPU's memory
                findings.left_out(name, f"{type(error).__name__}: {str(error).splitlines()[0][:200]}")
                continue
            compare_near(findings, f"{name}, fp32", found, kept[plan])
    else:
        findings.left_out("on another number of ranks")


def _as_shipped(findings: Findings, trainings: Trainings) -> None:
    """Whether the kernels that torch takes by itself give the same bits twice: no promise, worth knowing."""
    if findings.left() < 30:
        findings.left_out("the kernels that torch takes by itself")
        return
    plan = TrainingWay("bf16", deterministic=False)
    first, second = trainings.whole(plan), trainings.whole(plan)
    compare_bits(findings, "twice with the kernels that torch takes by itself, ZeRO 1, bf16", second, first, must=False)


def _named(plan: TrainingWay) -> str:
    return f"ZeRO {plan.zero}, {plan.precision}"


@dataclass(frozen=True)
class _OwnRanks:
    """A cluster that has ranks alone."""

    placing: RankPlacing

    def gang(self, fn: Callable[[Rank], None], *, resources: Any) -> None:
        gang(fn, resources.most_workers, self.placing)

    def fan(self, fn: Any, items: Any, **told: Any) -> Iterator[Any]:
        raise NotImplementedError("a pretraining has no tasks")

    def gpus(self) -> int:
        return torch.cuda.device_count() if self.placing.device != "cpu" else 0


class _Nobody:
    """No piece is shared with another node."""

    def alone(self, what: Mapping[str, Any]) -> AbstractContextManager[Out]:
        raise NotImplementedError("a pretraining shares no piece")
