"""Where ranks sit, and what their environment says before their process group is made."""

from types import SimpleNamespace
from typing import Any

import pytest

from vitpipe.infra.ray import process_group
from vitpipe.infra.ray.gang_size import Size, seats


def place(node: str, *gpus: str) -> Any:
    return SimpleNamespace(node=node, gpus=gpus)


@pytest.mark.parametrize("theirs", [None, "INFO"])
def test_nccl_settings_give_way_to_the_operators(theirs: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {} if theirs is None else {"NCCL_DEBUG": theirs}
    monkeypatch.setattr(process_group.os, "environ", environment)
    (seat,) = seats([place("a")], Size(1, 1, 1, 0), 0, 600)
    process_group.set_environment(seat, "127.0.0.1")
    assert environment["NCCL_DEBUG"] == (theirs or "WARN")
    assert environment["TORCH_NCCL_ASYNC_ERROR_HANDLING"] == "1"
    assert environment["DS_ACCELERATOR"] == "cpu" and "CUDA_VISIBLE_DEVICES" not in environment


def test_ranks_of_a_machine_share_its_gpus_and_each_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever order Ray has given them, and by number: 10 comes after 9."""
    places = [place("a", "10"), place("a", "9"), place("b", "1"), place("b", "0")]
    found = seats(places, Size(4, 4, 3, 1.0), restart=2, timeout_s=600)
    assert [seat.device for seat in found] == ["cuda:0", "cuda:1"] * 2
    assert [seat.gpus for seat in found] == [("9", "10")] * 2 + [("0", "1")] * 2
    assert [(seat.rank, seat.local_rank, seat.node_rank) for seat in found] == [
        (0, 0, 0), (1, 1, 0), (2, 0, 1), (3, 1, 1),
    ]  # fmt: skip
    assert all((seat.world_size, seat.local_world_size, seat.restart, seat.threads) == (4, 2, 2, 3) for seat in found)
    environment: dict[str, str] = {}
    monkeypatch.setattr(process_group.os, "environ", environment)
    process_group.set_environment(found[3], "127.0.0.1")
    assert environment["CUDA_VISIBLE_DEVICES"] == "0,1" and "DS_ACCELERATOR" not in environment
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "LOCAL_SIZE", "NODE_RANK")
    assert [environment[name] for name in names] == ["3", "4", "1", "2", "2", "1"]


@pytest.mark.parametrize(
    ("gpus", "given", "devices"),
    [
        (2.0, [("2", "3"), ("0", "1")], ["cuda:0", "cuda:2"]),
        (0.5, [("GPU-b",), ("GPU-a",), ("GPU-a",)], ["cuda:1", "cuda:0", "cuda:0"]),
    ],
)
def test_several_gpus_and_shares_of_one(gpus: float, given: list[tuple[str, ...]], devices: list[str]) -> None:
    places = [place("a", *ids) for ids in given]
    assert [seat.device for seat in seats(places, Size(1, 9, 1, gpus), 0, 600)] == devices
