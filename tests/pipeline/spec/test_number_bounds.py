"""Every number of every config: it has bounds, and none that passes `validate` crashes what looks at it afterwards."""

import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from number_places import Place, completed, number_places
from one_of_each import NODES, Nodes, beside, changed
from photos import encoded, picture
from safetensors.torch import save_file
from tars import samples, tar
from tiny_vit import random_state, tiny

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.cli import main as cli
from vitpipe.pipeline.spec.catalog import CATALOG
from vitpipe.pipeline.spec.text.problems import Mark, Problems
from vitpipe.pipeline.spec.text.typed import settings
from vitpipe.pipeline.spec.text.yaml_source import Value
from vitpipe.stages.estimates import Estimate
from vitpipe.stages.finetune.config import FinetuneConfig, FinetuneResources
from vitpipe.stages.settings import MOST, Duration, Settings
from vitpipe.stages.training.optim.schedule import ScheduleSettings, in_steps, lr_at

SECTIONS = [(node, section) for node in NODES for section in ("config", "resources")]
ABSURD = (-1, 0, 10**18, 1e18, 1e308, -1e308, 5e-324, math.nan, math.inf, -math.inf, ".nan", ".inf", "nan")
DO = "give it a type of stages/bounds.py, or Field(ge=..., le=...) where its meaning is its own"


def class_of(node: str, section: str) -> type[Settings]:
    stage = CATALOG[NODES[node]["stage"]]
    return stage.config_class() if section == "config" else stage.resources_class()


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Validates and plans these nodes where their data lies: the error as JSON if they were refused, else nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for number in range(4):
        Path("photos", "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Path("photos", "ab"[number % 2], f"{number}.png").write_bytes(encoded(picture(number), "PNG"))
    tar(Path("photos.tar"), samples(0, 6))
    save_file(random_state(tiny()), "model.safetensors")

    def look(nodes: Nodes, verbs: Sequence[str] = ("validate", "plan")) -> str:
        document = {"version": 1, "name": "run", "store": "file://./runs", "nodes": nodes}
        Path("spec.yaml").write_text(json.dumps(document))
        Path("large.yaml").write_text("cores_per_machine: 1000000")  # a plan refuses what machines could not hold
        for verb in verbs:
            on = ("--cluster-file", "large.yaml") if verb == "plan" else ()
            code = cli.invoke([verb, "spec.yaml", "--json", *on])
            said = capsys.readouterr()
            if code:
                assert code == 2 and "Traceback" not in said.err, (code, said, nodes)
                return said.out
        told: list[dict[str, Any]] = json.loads(said.out)["nodes"]
        json.dumps([Estimate.model_validate(one["estimate"] or {}).model_dump() for one in told], allow_nan=False)
        return ""

    return look


@pytest.mark.parametrize(("node", "section"), SECTIONS)
def test_every_number_says_its_bounds(node: str, section: str) -> None:
    cls = class_of(node, section)
    for place in number_places(cls):
        assert place.unbounded == [], f"{place.path} does not say its {' and its '.join(place.unbounded)}: {DO}"


def accepted(node: str, section: str, place: Place) -> Iterator[Any]:
    """Sections with a number there that `validate` has nothing against, by the very function it asks."""
    cls, base = class_of(node, section), NODES[node].get(section, {})
    for value in (*ABSURD, *place.ends, *(MOST.values() if not place.bounds else ())):
        filled = completed(cls, place.build(value), base)
        problems = Problems("read")
        made = settings(_read(filled), cls, node, problems)
        assert (made is None) == bool(problems.found), place.path
        if made is not None:
            assert not (isinstance(value, float) and not math.isfinite(value)), f"{place.path} takes {value}: {DO}"
            yield filled


def _read(data: Any) -> Value:
    """As if it stood in a file."""
    if isinstance(data, dict):
        return Value({key: _read(part) for key, part in data.items()}, Mark("spec"))
    return Value(tuple(map(_read, data)) if isinstance(data, list | tuple) else data, Mark("spec"))


@pytest.mark.parametrize(("node", "section"), SECTIONS)
def test_no_number_that_is_accepted_crashes_a_plan(node: str, section: str, plan: Callable[..., str]) -> None:
    places = number_places(class_of(node, section))
    filled = [one for place in places for one in accepted(node, section, place)]
    assert len(filled) >= len(places) / 2, "bounds are accepted: so much is tried"
    for start in range(0, len(filled), 60):
        left = dict(enumerate(filled[start : start + 60]))
        # `plan` validates first; what does not fit for other reasons is told by node
        while said := plan(beside(node, section, list(left.values())), ("plan",)):
            error = json.loads(said)["error"]
            told = [one["path"].split(".")[1] for one in error["problems"]] if "problems" in error else [error["asked"]]
            at = {int(one.rpartition("-")[2].split()[0]) for one in told}
            left = dict(enumerate(one for number, one in left.items() if number not in at))


@pytest.mark.parametrize(
    ("node", "section", "field", "value", "bound"),
    [
        ("probe", "resources", "gpus_per_task", -1, "should be greater than or equal to 0, not -1"),
        ("probe", "resources", "gpus_per_task", 1.5, "a part of one GPU, at least 0.0001, or whole ones, not 1.5"),
        ("probe", "resources", "cpus_per_task", -1, "should be greater than or equal to 0.0001, not -1"),
        ("probe", "resources", "cpus_per_task", 0, "should be greater than or equal to 0.0001, not 0"),
        ("backbone", "config", "total", "1000000000000 epochs", "at most 1000000 epochs, not '1000000000000 epochs'"),
        ("backbone", "config", "optimizer", {"peak_lr": 1e308}, "should be less than or equal to 1e+30, not 1e+308"),
        ("probe", "config", "image_px", 10**18, "should be less than or equal to 16384, not 1000000000000000000"),
        (
            "backbone",
            "config",
            "augment",
            {"crop": "resize", "resize_px": 7},
            "of 8 px cannot be cut from a side of 7 px",
        ),
        ("probe", "config", "seeds", [-1], "should be greater than or equal to 0, not -1"),
    ],
)
def test_the_message_says_the_bound(
    node: str, section: str, field: str, value: Any, bound: str, plan: Callable[..., str]
) -> None:
    said = plan(changed(node, **{section: {**NODES[node].get(section, {}), field: value}}))
    assert bound in json.loads(said)["error"]["found"]


def test_what_people_train_with_is_within_the_bounds(plan: Callable[..., str]) -> None:
    backbone = NODES["backbone"]["config"]
    wide = {
        "batch_images": 65536,
        "total": "300M images",
        "optimizer": {"kind": "sgd", "peak_lr": 32.0, "clip_norm": 1e9},
        "model": {"variant": "G/14", "image_px": 4480, "classes": 1_000_000},
    }
    long = {"total": "100000 epochs", "batch_images": 32768}
    for config in (wide, long):
        assert plan(changed("backbone", config={**backbone, **config}, resources={"workers": 512})) == ""
    assert FinetuneResources(gpus_per_task=2, cpus_per_task=0.25).gpus_per_task == 2


def test_numbers_that_are_absurd_together_are_planned_or_refused(plan: Callable[..., str]) -> None:
    """The largest of everything at once, in pairs of sections."""
    model = {"variant": {"layers": 1000, "width": 262144, "mlp": 262144, "heads": 1, "patch_px": 1}, "image_px": 16384}
    source = {"kind": "glyphs", "classes": 1000, "images_per_class": 1_000_000, "image_px": 1024}
    long = {"model": model, "total": "1000000 epochs"}
    steps = {"model": model, "batch_images": 2**24, "total": "1000000000000 steps"}
    saving = {"workers": 100_000, "keep": 1_000_000, "checkpoint_every": "1 steps", "milestone_every": "1 steps"}
    shown = {"method": "fewshot", "image_px": 16384, "shots": [10**12]}
    most: list[Nodes] = [
        {"data": {"config": {**NODES["data"]["config"], "source": source}}},
        {"backbone": {"config": {**long, "batch_images": 8}, "needs": {"shards": "data"}}},
        {"backbone": {"config": steps, "needs": {"shards": "data"}, "resources": saving}},
        {"scratch": {"config": {**long, "batch_images": 1, "peak_lr": 10_000}}},
        {"probe": {"config": shown, "resources": {"cpus_per_task": 0.0001}}},
    ]
    for one, other in itertools.combinations_with_replacement(most, 2):
        assert plan({name: {**node, **one.get(name, {}), **other.get(name, {})} for name, node in NODES.items()}) == ""


def test_a_crop_larger_than_the_side_it_is_cut_from_is_told_before_a_training(plan: Callable[..., str]) -> None:
    crop = {**NODES["scratch"]["config"], "crop": "resmall", "crop_px": 7}
    said = plan(changed("scratch", config={**crop, "image_px": 8}))
    assert "crop_px: a crop of 8 px cannot be cut from a side of 7 px" in json.loads(said)["error"]["found"]
    config = FinetuneConfig.model_validate(crop)
    with pytest.raises(UsageError, match="a crop of 8 px cannot be cut from a side of 7 px"):
        config.architecture(None, 4)


def test_a_length_that_rounds_to_no_step_divides_nothing() -> None:
    schedule = ScheduleSettings(kind="rsqrt", cooldown=Duration(1, "steps"), timescale=Duration(0.1, "steps"))
    assert lr_at(5, 10, in_steps(schedule, 10, 8, 100), 1.0) > 0


@pytest.mark.parametrize("top", [{"version": -1}, {"version": 10**18}, {"version": 1e308}, {"version": ".nan"}])
def test_numbers_of_the_top_level_are_refused(top: dict[str, Any], plan: Callable[..., str]) -> None:
    document = {"version": 1, "name": "run", "store": "file://./runs", "nodes": NODES, **top}
    Path("spec.yaml").write_text(json.dumps(document))
    assert cli.invoke(["validate", "spec.yaml"]) == 2


class Forgetful(Settings):
    """A section whose author thought of no bounds."""

    count: int
    shares: tuple[float, ...] | None = None


def test_a_number_without_bounds_is_found() -> None:
    assert {place.path: place.unbounded for place in number_places(Forgetful)} == {
        "Forgetful.count": ["least", "most"],
        "Forgetful.shares[]": ["least", "most"],
    }


@pytest.mark.parametrize("option", ["--price-per-gpu-hour=inf", "--price-per-gpu-hour=nan", f"--gpus={10**30}"])
def test_numbers_of_the_command_line_are_bounded_too(option: str, plan: Callable[..., str]) -> None:
    assert plan(NODES) == ""
    assert cli.invoke(["plan", "spec.yaml", "--gpu", "H100", option]) == 2
