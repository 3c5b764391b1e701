"""Which node of a run is the most urgent: by the plan, by what inputs tell later, and by what was measured."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vitpipe.infra.storage.opening import open_store
from vitpipe.pipeline.drive.critical_path import UNKNOWN_S, CriticalPath
from vitpipe.pipeline.drive.foresight import Foresight
from vitpipe.pipeline.plan.decide import make_plan
from vitpipe.pipeline.plan.survey import survey
from vitpipe.pipeline.spec.load import load
from vitpipe.stages.estimates import Estimate

DEMO = Path(__file__).parents[3] / "configs/quickstart.yaml"


def path_of(spec_path: Path, tmp_path: Path, pace: Any = lambda node: None) -> CriticalPath:
    spec = load(spec_path, [f"store=file://{tmp_path}"], env={})
    facts = survey(open_store(spec.uri), spec.graph)
    plan = make_plan(spec.graph, facts)
    return CriticalPath(spec.graph, plan, Foresight(spec.graph, plan, facts), pace)


def test_the_demos_pretraining_and_what_leads_to_it_go_first(tmp_path: Path) -> None:
    chains = path_of(DEMO, tmp_path).chains({})
    order = sorted(chains, key=lambda node: -chains[node])
    assert order[:2] == ["glyphs", "backbone"], "the images, then the training; the longest of all"
    assert order.index("digits") < order.index("scratch") and order[-1] == "table"
    assert chains["backbone"] > chains["weights"] > chains["transfer"] > chains["table"] > 0
    assert chains["glyphs"] > chains["digits"] and chains["transfer"] > chains["probe"]


def test_what_ended_corrects_the_others_of_its_stage(tmp_path: Path) -> None:
    done: Any = {"digits": None, "scratch": None}
    hours = SimpleNamespace(estimate=lambda node, committed: Estimate(hours=1.0))
    found = {}
    for pace in (None, 10.0):
        path = path_of(DEMO, tmp_path, lambda node, pace=pace: pace if node == "scratch" else None)
        path.foresight = hours  # type: ignore[assignment]
        found[pace] = path.seconds("transfer", done), path.seconds("backbone", done), path.chains(done)
    assert found[10.0][:2] == (36_000, 3600) and found[None][:2] == (3600, 3600)
    assert "scratch" not in found[10.0][2] and found[10.0][2]["transfer"] == 39_600


def test_what_is_unknown_counts_as_much_as_the_longest_that_is_known(tmp_path: Path) -> None:
    path = path_of(DEMO, tmp_path)
    hours = {"backbone": 2.0, "scratch": 0.001}
    path.foresight = SimpleNamespace(  # type: ignore[assignment]
        estimate=lambda node, committed: Estimate(hours=hours.get(node))
    )
    chains = path.chains({})
    assert chains["table"] == 7200 and chains["scratch"] == 7203.6
    assert chains["weights"] == 3 * 7200, "three of unknown length"
    hours.clear()
    fresh = path_of(DEMO, tmp_path)
    fresh.foresight = path.foresight
    assert fresh.chains({})["table"] == UNKNOWN_S
