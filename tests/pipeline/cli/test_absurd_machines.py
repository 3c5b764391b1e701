"""Every number of the files of machines and GPUs has bounds, and at them a plan is finite and can be printed."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from annotated_types import Ge, Le
from command_line import Vitpipe, typed
from pydantic.fields import FieldInfo
from test_conform_verb import SPEC

from vitpipe.stages.costs.machines import ClusterFacts, GpuKind
from vitpipe.stages.settings import Settings

OF = "nodes.backbone.resources"
ASKED = (f"{OF}.gpus_per_worker=1", f"{OF}.workers=64", f"{OF}.checkpoint_every=500 steps", "--gpu", "H100")
WHOLE = "gpus_per_machine", "cores_per_machine"
TIMES = "latency_s", "restart_s", "ranks_start_s", "task_start_s", "watts", "core_watts", "launch_us"


def ends(kind: type[Settings]) -> Iterator[tuple[str, float, float]]:
    """Each number's least and most."""
    for name, field in kind.model_fields.items():
        if name != "utilisation":
            found = list(metadata(field))
            least, most = ([one for one in found if isinstance(one, bound)] for bound in (Ge, Le))
            assert least and most, f"{kind.__name__}.{name} has no bounds: give it Field(ge=..., le=...)"
            yield name, float(str(least[0].ge)), float(str(most[0].le))


def metadata(field: FieldInfo) -> Iterator[Any]:
    """What is said of a field, also where it may be left out."""
    yield from field.metadata
    for kind in (field.annotation, *get_args(field.annotation)):
        for one in getattr(kind, "__metadata__", ()):
            yield from getattr(one, "metadata", ()) if isinstance(one, FieldInfo) else (one,)


@pytest.fixture
def plan(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vitpipe:
    (tmp_path / "my.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    return typed(capsys, "plan", "my.yaml", *ASKED)


def printed(plan: Vitpipe, *more: str) -> str:
    code, out, err = plan(*more)
    assert code == 0, err
    assert not re.search(r"\b(inf|nan)\b|\d{20}", out), out
    json.loads(plan(*more, "--json")[1], parse_constant=lambda word: pytest.fail(f"{word} of {more}"))
    return out


@pytest.mark.parametrize(("rates", "times"), [(0, 0), (1, 1), (0, 1)], ids=["all least", "all most", "slowest"])
def test_a_plan_at_the_bounds_is_finite_and_can_be_printed(
    rates: int, times: int, plan: Vitpipe, tmp_path: Path
) -> None:
    def said(kind: type[Settings]) -> dict[str, Any]:
        return {name: bounds[times if name in TIMES else rates] for name, *bounds in ends(kind)}

    gpu = {**said(GpuKind), "utilisation": {"default": (1e-6, 1)[rates]}}
    (tmp_path / "c.json").write_text(json.dumps({**said(ClusterFacts), **dict.fromkeys(WHOLE, 8)}))
    (tmp_path / "g.json").write_text(json.dumps({"H100": gpu}))
    told = printed(plan, "--cluster-file", "c.json", "--gpus-file", "g.json", "--why")
    assert rates or " years" in told


def test_a_sweep_beyond_the_bounds_says_them(plan: Vitpipe) -> None:
    code, out, _ = plan("--sweep", "network_gbit_per_s=1e-300,1e-6,1e12,1e20")
    assert code == 0 and "1e-300  should be greater than or equal to 0.000001, not 1e-300" in out
    assert "1e+20  should be less than or equal to 1000000000000, not 1e+20" in out and " years, " in out
    assert (
        "8.5  should be a valid integer, got a number with a fractional part"
        in plan("--sweep", "cores_per_machine=8.5,112")[1]
    )
