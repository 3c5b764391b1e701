"""A rank that holds the others up is named once, and nobody else is; MFU where the device is known."""

import pytest

from vitpipe.stages.pretrain.reporting import peak_flops
from vitpipe.stages.pretrain.stragglers import WINDOW, Stragglers
from vitpipe.stages.training.measure.step_metrics import RankTimes

USUAL = RankTimes(forward_seconds=0.1, data_wait_seconds=0.01)


def named(rank_times: list[RankTimes], windows: int = 3, step_seconds: float = 0.4) -> list[tuple[int, str]]:
    stragglers = Stragglers(len(rank_times))
    return [found for _ in range(windows * WINDOW) for found in stragglers.add(rank_times, step_seconds)]


def test_equal_ranks_have_no_straggler() -> None:
    assert named([USUAL] * 8) == []


@pytest.mark.parametrize("slow", [RankTimes(0.2, 0.01), RankTimes(0.1, 0.11)], ids=["computing", "reading"])
def test_a_slow_rank_is_named_once_with_what_it_spends(slow: RankTimes) -> None:
    ((rank, words),) = named([USUAL, USUAL, slow, USUAL])
    assert rank == 2
    assert "0.21 s a step by itself where 0.11 s is usual" in words
    assert f"{slow.data_wait_seconds:.3g} s for data, {slow.forward_seconds:.3g} s of forward" in words


def test_of_two_ranks_the_slow_one_is_named() -> None:
    assert [rank for rank, _ in named([USUAL, RankTimes(0.3, 0.01)])] == [1]


def test_what_costs_little_of_the_step_is_not_told() -> None:
    assert named([USUAL, USUAL, RankTimes(0.1, 0.05)], step_seconds=2.0) == []


def test_a_single_slow_step_is_nobodys_fault() -> None:
    stragglers = Stragglers(3)
    rank_times = [[USUAL, USUAL, RankTimes(0.4, 0.01)]] + [[USUAL] * 3] * (WINDOW - 1)
    assert [found for one in rank_times for found in stragglers.add(one, 0.4)] == []


def test_a_rank_that_recovered_is_named_again() -> None:
    stragglers, found = Stragglers(3), []
    for slow in (True, False, True):
        for _ in range(WINDOW):
            found += stragglers.add([USUAL, USUAL, RankTimes(0.4, 0.0) if slow else USUAL], 0.5)
    assert [rank for rank, _ in found] == [2, 2]


@pytest.mark.parametrize(
    ("device", "flops"),
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA A100-SXM4-80GB", 312e12),
     ("NVIDIA A10", 125e12), ("NVIDIA L40S", 362e12), ("NVIDIA L4", 121e12), ("NVIDIA GeForce RTX 4090", 165e12),
     ("NVIDIA H20", None), ("Tesla V100-SXM2-16GB", None)],
)  # fmt: skip
def test_devices_by_their_names(device: str, flops: float | None) -> None:
    assert peak_flops(device) == flops
