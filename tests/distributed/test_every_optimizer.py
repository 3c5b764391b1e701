"""Every optimiser there is: what the plan says a parameter's moments take is what a run holds and
saves, and a state that 2 ranks wrote is what 3 ranks load at another stage and write again."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from inprocess import InProcessCluster
from optimizers import optimizer
from states import differing, numbers, read_state, write_state
from tiny_training import NO_DROPOUT, course, engine, model, steps

from vitpipe.infra.work import Rank
from vitpipe.stages.training.checkpoint.committed_steps import STATE
from vitpipe.stages.training.optim.kinds import RULES, kinds_of
from vitpipe.stages.training.optim.rule import OptimizerSettings

STAGES = {1: 3, 3: 0}
"""ZeRO stage that writes a state, and the one that loads it."""
WAYS = (("bf16", 1, "bf16"), ("fp32", 3, "fp32"))
"""Type of the first moment, ZeRO stage and precision."""
CASES = [(kinds_of(rule)[0], *way) for rule in RULES for way in WAYS]


@dataclass(frozen=True)
class Workers:
    workers: int


def rule_of(kind: str, state_dtype: str) -> OptimizerSettings:
    return optimizer(kind=kind, state_dtype=state_dtype, peak_lr=3e-3)


def name_of(case: tuple[str, str, int, str]) -> str:
    return "-".join(map(str, case))


def write_all(folder: Path, rank: Rank) -> None:
    for case in CASES:
        kind, state_dtype, zero, precision = case
        made = engine(rank, zero, precision, NO_DROPOUT, batch=12, rule=rule_of(kind, state_dtype))
        for _ in steps(made, course(total_steps=3)):
            pass
        write_state(made, folder / name_of(case), rank.rank)
        held = {id(part.weights): part.weights for part in made.state.held}.values()
        states = [made.state._optimizer.state[weights] for weights in held]
        found = {
            "weights": sum(weights.numel() for weights in held),
            "bytes": sum(one.nbytes for state in states for one in state.values() if one.dim()),
        }
        (folder / name_of(case) / f"held-{rank.rank}.json").write_text(json.dumps(found))


def load_all(folder: Path, rank: Rank) -> None:
    for case in CASES:
        kind, state_dtype, zero, precision = case
        made = engine(rank, STAGES[zero], precision, NO_DROPOUT, batch=12, rule=rule_of(kind, state_dtype))
        read_state(made, folder / name_of(case))
        write_state(made, folder / f"{name_of(case)}-again", rank.rank)


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("states")
    InProcessCluster(2).gang(functools.partial(write_all, folder), resources=Workers(2))
    InProcessCluster(3).gang(functools.partial(load_all, folder), resources=Workers(3))
    return folder


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_run_holds_and_saves_what_the_plan_says(states: Path, case: tuple[str, str, int, str]) -> None:
    kind, state_dtype, _, _ = case
    planned, folder = rule_of(kind, state_dtype).moment_bytes, states / name_of(case)
    for rank in (0, 1):
        held = json.loads((folder / f"held-{rank}.json").read_text())
        assert held["bytes"] == planned * held["weights"]
    saved = sum(path.stat().st_size - _header(path) for path in (folder / STATE).glob("moments-*"))
    assert saved == planned * sum(one.numel() for one in model(NO_DROPOUT).parameters())


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_every_number_arrives_at_another_stage_and_world_size(states: Path, case: tuple[str, str, int, str]) -> None:
    wrote, found = (numbers(states / name / STATE) for name in (name_of(case), f"{name_of(case)}-again"))
    rule = rule_of(case[0], case[1])
    assert {name.partition("/")[0] for name in wrote} == {"weight", "updates", *rule.moments}
    assert int(wrote["updates"]) == (3 if rule.counts_updates else 0)
    assert {name.partition("/")[0] for name, one in wrote.items() if one.any()} >= set(rule.moments), "none is dead"
    assert differing(found, wrote) == []


def _header(path: Path) -> int:
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")
