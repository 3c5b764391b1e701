"""What machines could hold, and a rank's share of them."""

import pytest

from vitpipe.infra.ray import capacity
from vitpipe.infra.ray.gang_notes import RankProcess
from vitpipe.infra.ray.gang_size import Size, seats
from vitpipe.stages.costs.machines import ClusterFacts

HGX = {"CPU": 112.0, "GPU": 8.0}


@pytest.mark.parametrize(
    ("machines", "gpus", "cores"),
    [
        ([HGX, HGX], 1, 13),
        ([HGX, {"CPU": 64.0, "GPU": 8.0}], 1, 7),
        ([HGX, {"CPU": 256.0}], 1, 13),
        ([{"CPU": 16.0, "GPU": 1.0}], 1, 15),
        ([{"CPU": 16.0, "GPU": 1.0}], 0.5, 7),
        ([{"CPU": 4.0, "GPU": 8.0}], 1, 1),
        ([{"CPU": 16.0}], 1, 1),
        ([HGX], 0, 1),
    ],
)
def test_a_gpus_rank_has_its_share_of_the_cores(
    machines: list[dict[str, float]], gpus: float, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "machines", lambda: dict(enumerate(machines)))
    assert capacity.cores_beside(gpus) == cores


def test_a_plan_reckons_with_the_cores_that_a_run_gives() -> None:
    facts = ClusterFacts(cores_per_machine=112, gpus_per_machine=8)
    assert [facts.cores_for(asked, gpus) for asked, gpus in ((None, 1), (None, 0), (5, 1))] == [13, 1, 5]


def test_a_seat_says_how_many_cores_are_the_ranks() -> None:
    place = RankProcess("a", "10.0.0.1", who=None)  # type: ignore[arg-type]
    assert [seat.threads for seat in seats([place], Size(1, 1, 13, 0), restart=0, timeout_s=1)] == [13]
