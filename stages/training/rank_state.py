"""Which numbers of the training state this rank holds, and where DeepSpeed keeps them.

A number has one name at every world size and ZeRO stage: kind (weight, a moment), parameter, place in the flattened
parameter. Knows the insides of DeepSpeed 0.19's optimisers, as `engine.py` gives them, but imports none of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from vitpipe.infra.work import Rank
from vitpipe.stages.training.config import WEIGHT
from vitpipe.stages.training.optim.rule import OptimizerSettings
from vitpipe.stages.training.optim.torch_optimizer import STEP, begin_state

_MASTERS = (("bit16_groups", "single_partition_of_fp32_groups"), ("bf16_groups", "fp32_groups_flat_partition"))
"""DeepSpeed's ZeRO 1 and 2, and `FlatOptimizer`: the parameters of each group, and this rank's part of their flat
fp32 weights."""


@dataclass(frozen=True)
class Fragment:
    """Numbers [start, start + count) of a parameter."""

    name: str
    start: int
    count: int
    weights: Tensor
    """The fp32 tensor that the optimiser updates, of which they are [at, at + count)."""
    at: int

    @property
    def run(self) -> tuple[str, int, int]:
        """Parameter, first number and how many, as a checkpoint's layout lists them."""
        return self.name, self.start, self.count

    def within(self, tensor: Tensor) -> Tensor:
        """These numbers in a tensor that is laid out as `weights`, as a flat view."""
        return tensor.detach().view(-1)[self.at : self.at + self.count]

    def cut(self, rank: int, world_size: int) -> "Fragment":
        """One rank's share when all hold the same."""
        low, high = self.count * rank // world_size, self.count * (rank + 1) // world_size
        return Fragment(self.name, self.start + low, high - low, self.weights, self.at + low)


class RankState:
    """The fp32 weights and the moments of one rank. Made once the engine is; live as long as it."""

    def __init__(self, engine: Any, optimizer: Optimizer, rule: OptimizerSettings, zero: int, rank: Rank) -> None:
        self._engine, self._optimizer, self._zero = engine, optimizer, zero
        named = {id(parameter): name for name, parameter in engine.module.named_parameters()}
        whole = ((name, getattr(one, "ds_shape", one.shape)) for name, one in engine.module.named_parameters())
        self.shapes: dict[str, tuple[int, ...]] = {name: tuple(shape) for name, shape in whole}
        parts = _split_by_parameter if zero == 3 else _split_by_group
        self.held: list[Fragment] = [part for part in parts(engine, named, rank.rank) if part.count]
        """All that this rank works with."""
        shares = (part.cut(rank.rank, rank.world_size) for part in self.held)
        self.share: list[Fragment] = self.held if zero else [part for part in shares if part.count]
        """What it saves: the shares of all ranks together are every number once."""
        self.moments = tuple(rule.moments)
        for weights in {id(part.weights): part.weights for part in self.held}.values():
            begin_state(optimizer, rule, weights)

    def numbers(self, kind: str, parts: Sequence[Fragment]) -> list[Tensor]:
        """Flat views of the numbers of a kind, `weight` or one of `moments`; what is copied in counts."""
        if kind == WEIGHT:
            return [part.within(part.weights) for part in parts]
        return [part.within(self._optimizer.state[part.weights][kind]) for part in parts]

    @property
    def updates(self) -> int:
        """Updates that the optimiser's bias corrections count; 0 where it has none."""
        steps = {int(state[STEP]) for state in self._optimizer.state.values() if STEP in state}
        return max(steps, default=0)

    def loaded(self, updates: int) -> None:
        """Make true everywhere what was copied into `held`: counters, and the copies that the model computes with."""
        for state in self._optimizer.state.values():
            if STEP in state:
                state[STEP].fill_(updates)
        inner = self._engine.optimizer
        if self._zero == 3:
            for group in range(len(inner.fp16_groups)):
                inner._reassign_or_swap_out_partitioned_parameters(group)
            if inner.persistent_parameters:
                inner.persistent_parameters[0].all_gather(inner.persistent_parameters)
        else:
            inner.update_lp_params()


def _split_by_group(engine: Any, named: dict[int, str], rank: int) -> Iterator[Fragment]:
    """Stages 0 to 2: a group's parameters are one flat tensor, of a rank alone or cut into equal runs of the ranks."""
    inner = engine.optimizer
    groups, masters = next(places for places in _MASTERS if hasattr(inner, places[1]))
    for parameters, weights in zip(getattr(inner, groups), getattr(inner, masters), strict=True):
        for parameter in parameters:
            link = parameter._hp_mapping
            if link is not None:
                place, at = link.lp_fragment_address, link.hp_fragment_address.start
                yield Fragment(named[id(parameter)], place.start, place.numel, weights, at)


def _split_by_parameter(engine: Any, named: dict[int, str], rank: int) -> Iterator[Fragment]:
    """Stage 3: every parameter is cut into equal runs of the ranks, the last one padded."""
    inner = engine.optimizer
    for parameters, weights in zip(inner.fp16_groups, inner.fp32_partitioned_groups_flat, strict=True):
        at = 0
        for parameter in parameters:
            run = parameter.partition_numel()
            count = min(run, parameter.ds_numel - rank * run)
            yield Fragment(named[id(parameter)], rank * run, max(0, count), weights, at)
            at += run
