"""What a plan says would fit a GPU's memory is taken at its word."""

import re

import pytest
from test_pretrain_estimate import I21K, paper

from vitpipe.stages.estimates import Known
from vitpipe.stages.pretrain.config import PretrainResources
from vitpipe.stages.pretrain.estimate import estimate

WAYS = re.compile(r"(micro_batch|activation_checkpointing|zero|workers|offload) (\w+)")


def notes(gpu_gb: float, variant: str = "L/16", **resources: object) -> tuple[str, ...]:
    told = PretrainResources.model_validate({"gpus_per_worker": 1, "micro_batch": 64, "workers": 8, **resources})
    known = Known(gpus=told.most_workers, gpu_bytes=1e9 * gpu_gb)
    return estimate(paper(variant), told, {"shards": (I21K,)}, known).notes


@pytest.mark.parametrize(
    ("gpu_gb", "variant"), [(12, "L/16"), (8, "L/16"), (16, "H/14"), (11.5, "H/14"), (9.2, "H/14")]
)
def test_each_way_that_is_said_fits(gpu_gb: float, variant: str) -> None:
    (said,) = notes(gpu_gb, variant)
    assert said.startswith("needs ")
    ways = said.split("try ")[1].split(" or ")
    for way in ways:
        changes = dict(WAYS.findall(way))
        assert changes and not any(note.startswith("needs") for note in notes(gpu_gb, variant, **changes)), way
    assert len(ways) == 1 or "no setting alone" not in said


def test_the_largest_micro_batch_that_fits_is_said() -> None:
    (said,) = notes(8)
    found = int(dict(WAYS.findall(said))["micro_batch"])
    assert found < 32 and any(note.startswith("needs") for note in notes(8, micro_batch=2 * found))


def test_what_nothing_makes_fit_is_said() -> None:
    (said,) = notes(1, "H/14")
    assert said.endswith("take a larger GPU") and "with micro_batch 1 with activation_checkpointing blocks" in said
    (said,) = notes(1, zero=3, micro_batch=1, activation_checkpointing="blocks", offload="cpu", workers=4096)
    assert re.fullmatch(r"needs [0-9.]+ GB of a GPU that has 1: take a larger GPU", said)


def test_recomputing_says_what_it_costs_and_where_it_is_needless() -> None:
    """Without dropout the MLP's last product, a third of a block's dense layers, is not made again: 23 % of all."""
    (said,) = notes(80, "H/14", activation_checkpointing="blocks")
    assert said.startswith("activation_checkpointing blocks computes 23% more for nothing: without it a worker needs ")
    assert not notes(16, "H/14", activation_checkpointing="blocks"), "there it is needed"
    assert any("activation_checkpointing blocks (23% more to compute)" in note for note in notes(16, "H/14"))
