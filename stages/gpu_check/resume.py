"""Golden resume on the device: a pretraining whose rank is killed and started again equals one that nothing happens to.

To the last bit, of every loss and every number of the last checkpoint; on another number of ranks and at another ZeRO
stage within rounding. The stage's own `run`, its loop and its checkpoints, with ranks that this check starts.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch

from vitpipe.infra.errors import Stopped
from vitpipe.infra.work import Rank
from vitpipe.stages.artifacts import Checkpoint, ShardSet
from vitpipe.stages.contract import Inputs, Out, StageContext
from vitpipe.stages.gpu_check.drawn import PhotoSize, drawn_shards
from vitpipe.stages.gpu_check.findings import Findings, Way
from vitpipe.stages.gpu_check.ranks import OwnFence, Placing, doors, gang
from vitpipe.stages.pretrain.config import PretrainConfig, PretrainResources
from vitpipe.stages.pretrain.run import run as pretrain

STEPS, EVERY, BATCH, MICRO = 6, 2, 24, 8
KILLED_AT = 4
"""The question, one a step, at which the rank dies: after step 3 has begun, with step 2 committed."""
TERMS = 512
"""As in `losses`: the longest sum of a number."""
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
class Golden:
    """One training as it is compared."""

    losses: list[str]
    """In hexadecimal, every bit of them."""
    digests: dict[str, str]
    """SHA-256 of each file of the last step's state."""

    def values(self) -> list[float]:
        """The losses as numbers."""
        return [float.fromhex(loss) for loss in self.losses]


@dataclass(frozen=True)
class Plan:
    """How one training is made."""

    precision: str
    zero: int = 1
    ranks: int = 1
    deterministic: bool = True


class Trainings:
    """Trainings of one recipe on one set of shards, in a folder."""

    def __init__(self, way: Way, shards: ShardSet) -> None:
        self._way, self._shards, self._count = way, shards, 0

    def whole(self, plan: Plan) -> Golden:
        """Train without disturbance."""
        return self._golden(self._node(), plan, self._placing(plan))

    def killed(self, plan: Plan) -> Golden:
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

    def moved(self, first: Plan, then: Plan) -> Golden:
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

    def _placing(self, plan: Plan) -> Placing:
        gpus = torch.cuda.device_count() if self._way.cuda else 0
        backend = "nccl" if 0 < plan.ranks <= gpus else "gloo"
        return Placing(self._way.device, backend, plan.deterministic)

    def _golden(
        self,
        node: str,
        plan: Plan,
        placing: Placing,
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


def golden(out: Out, made: Checkpoint) -> Golden:
    """Read what a training came to."""
    lines = [json.loads(line) for line in out.node.read(made.file("metrics.jsonl").at).splitlines()]
    state = {file.path: file.sha256 for file in made.files if "/state/" in file.path}
    return Golden([line["loss_hex"] for line in lines], state)


def run(way: Way, findings: Findings) -> None:
    """Kill and resume at the ways that people use, then move between ways."""
    images, size = (64, PhotoSize(48, 40, 1.46))
    trainings = Trainings(way, drawn_shards(way.scratch, images, size))
    plans = [Plan("fp32")] if way.shrunk else [Plan("bf16"), Plan("fp32"), Plan("bf16", zero=0), Plan("bf16", zero=2)]
    kept: dict[Plan, Golden] = {}
    for plan in plans:
        if kept and findings.left() < 45:
            findings.left_out(f"kill and resume at {_named(plan)}")
            continue
        kept[plan] = trainings.whole(plan)
        compare_bits(findings, f"killed and resumed, {_named(plan)}", trainings.killed(plan), kept[plan])
    _move(way, findings, trainings, kept)
    if way.cuda:
        _as_shipped(findings, trainings, kept)
    findings.note(f"a rank of {STEPS} steps is killed in step {KILLED_AT}; kernels are told to be deterministic")


def compare_bits(findings: Findings, name: str, found: Golden, wanted: Golden, must: bool = True) -> None:
    """Add a row: how many losses and files of the last state are the same bits."""
    losses = sum(one == other for one, other in zip(found.losses, wanted.losses, strict=False))
    files = sum(found.digests.get(path) == digest for path, digest in wanted.digests.items())
    same = found == wanted and bool(wanted.digests)
    cells = {
        "way": name,
        "losses equal": f"{losses} of {len(wanted.losses)}",
        "files of the state equal": f"{files} of {len(wanted.digests)}",
        "apart": 0.0 if same else apart(found, wanted),
        "at most": 0.0,
    }
    findings.row(cells, ok=same if must else None)


def compare_near(findings: Findings, name: str, found: Golden, wanted: Golden) -> None:
    """Add a row: how far the losses are apart, which were summed in another order."""
    most, losses = TERMS * 2.0**-24 * STEPS / 6, apart(found, wanted)
    equal = sum(one == other for one, other in zip(found.losses, wanted.losses, strict=False))
    cells = {
        "way": name,
        "losses equal": f"{equal} of {len(wanted.losses)}",
        "files of the state equal": None,
        "apart": losses,
        "at most": most,
    }
    findings.row(cells, ok=losses <= most)


def apart(found: Golden, wanted: Golden) -> float:
    """Find the largest relative difference of a loss; infinite where steps are missing."""
    if len(found.losses) != len(wanted.losses):
        return float("inf")
    pairs = zip(found.values(), wanted.values(), strict=True)
    return max(abs(one - other) / abs(other) if one == one else float("inf") for one, other in pairs)


def _move(way: Way, findings: Findings, trainings: Trainings, kept: Mapping[Plan, Golden]) -> None:
    """Half of the steps one way and half another: ZeRO 1 to 0, and one rank to two, which may share a GPU by gloo."""
    plan = Plan("fp32")
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


def _as_shipped(findings: Findings, trainings: Trainings, kept: Mapping[Plan, Golden]) -> None:
    """Whether the kernels that torch takes by itself give the same bits twice: no promise, worth knowing."""
    if findings.left() < 30:
        findings.left_out("the kernels that torch takes by itself")
        return
    plan = Plan("bf16", deterministic=False)
    first, second = trainings.whole(plan), trainings.whole(plan)
    compare_bits(findings, "twice with the kernels that torch takes by itself, ZeRO 1, bf16", second, first, must=False)


def _named(plan: Plan) -> str:
    return f"ZeRO {plan.zero}, {plan.precision}"


@dataclass(frozen=True)
class _OwnRanks:
    """A cluster that has ranks alone."""

    placing: Placing

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
