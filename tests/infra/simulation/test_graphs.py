"""A graph of a few nodes by the simulated queue, beside what one reckons by hand."""

import pytest

from vitpipe.infra.errors import UsageError
from vitpipe.infra.simulation.graphs import SimulatedNode, Span, run_graph


def test_a_pipeline_takes_what_one_reckons():
    nodes = {
        "images": SimulatedNode((10.0,) * 6),
        "net": SimulatedNode((100.0,), {"CPU": 2.0}, 2, ("images",)),
        "trials": SimulatedNode((20.0,) * 5, needs=("net",)),
        "nothing": SimulatedNode((), needs=("trials",)),
        "table": SimulatedNode((1.0,), needs=("trials", "nothing")),
    }
    ran = run_graph(nodes, {name: {"CPU": 2.0} for name in "ab"})
    assert ran.spans["images"] == Span(0, 0, 20)
    assert ran.spans["net"] == Span(20, 20, 120)
    assert ran.spans["trials"] == Span(120, 120, 160)
    assert ran.spans["nothing"] == Span(160, 160, 160)
    assert ran.seconds == 161
    assert [sorted(turn.machines) for turn in ran.turns if turn.node == "net"] == [["a", "b"]]


def test_what_the_queue_is_told_orders_and_what_is_true_lasts():
    nodes = {"trials": SimulatedNode((1.0, 9.0), estimates=(9.0, 1.0))}
    ran = run_graph(nodes, {"m": {"CPU": 1.0}})
    assert [turn.ended - turn.began for turn in ran.turns] == [1.0, 9.0]


def test_a_gang_that_no_machines_hold_is_refused():
    with pytest.raises(UsageError, match=r"net asks for 3 x \(1 GPU\), room for 2 on the only machine"):
        run_graph({"net": SimulatedNode((1.0,), {"GPU": 1.0}, 3)}, {"m": {"GPU": 2.0}})
