"""`import vitpipe` as a notebook uses it: models, few-shot scores, conversions and runs, and what is refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from inprocess import commit, make_context
from PIL import Image
from synthetic import shards, weights
from tiny_checkpoint import commit_checkpoint
from tiny_vit import random_state, tiny

import vitpipe
from vitpipe.pipeline.cli import main as cli
from vitpipe.pipeline.library.doors import cpus
from vitpipe.pipeline.library.table import Rows, table
from vitpipe.stages.artifacts import Report, Score
from vitpipe.stages.contract import Inputs
from vitpipe.stages.evaluate.config import EvaluateConfig, EvaluateResources
from vitpipe.stages.evaluate.run import run
from vitpipe.stages.images.evaluate import fitted
from vitpipe.stages.preparation import EvalWay
from vitpipe.stages.record import load_artifact
from vitpipe.stages.settings import TaskResources
from vitpipe.stages.vit.model import ViT

SPEC = """\
version: 1
name: test
store: file://./store
nodes:
  colours: {stage: ingest, config: {source: {kind: digits}}}
  probe: {stage: evaluate, needs: {data: colours}, config: {method: fewshot, features: raw_pixels, image_px: 16}}
  table: {stage: report, needs: {scores: [probe]}}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in `store/test`: data, weights, a checkpoint with its curve, a score without weights and a page."""
    path = tmp_path_factory.mktemp("library")
    data = shards(path, noise=400.0)
    given = weights(path)
    commit_checkpoint(path, tiny())
    ctx = make_context(path, "probe", EvaluateResources(batch_images=16))
    config = EvaluateConfig(method="fewshot", shots=(5, 1))
    commit(ctx, run(config, Inputs({"data": [data], "weights": [given]}), ctx), stage="evaluate")
    ctx = make_context(path, "table", TaskResources())
    commit(ctx, Report(files=(ctx.out.put("index.html", b"<p>"),), headline="so"), stage="report")
    ctx = make_context(path, "curved", TaskResources())
    lines = "".join(json.dumps({"step": step, "loss": 1 / step}) + "\n" for step in (1, 2))
    commit(ctx, Report(files=(ctx.out.put("metrics.jsonl", lines.encode()),), headline="x"), stage="report")
    (path / "store/test/spec.yaml").write_text(SPEC)
    rng = np.random.default_rng(0)
    for name in ("photos/a.png", "photos/deep/b.jpg"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)).save(path / name)
    (path / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    return path


@pytest.fixture(autouse=True)
def here(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    monkeypatch.setenv("XDG_CACHE_HOME", str(world / "cache"))


def test_a_loaded_model_is_a_vit_that_knows_its_labels_and_how_it_wants_images() -> None:
    model = vitpipe.load("store/test/weights")
    assert isinstance(model, ViT) and not model.training and model.labels == tuple(f"class {n}" for n in range(5))
    assert set(model.state_dict()) == set(ViT(model.settings).state_dict()), "the parameters keep their names"
    whole = np.array(Image.open("photos/a.png"))
    prepared = model.preprocess("photos/a.png")
    assert prepared.dtype == torch.uint8 and np.array_equal(
        prepared.permute(1, 2, 0), fitted(whole, 16, EvalWay("squash"))
    )
    with torch.inference_mode():
        shares = model(prepared[None].to(next(model.parameters()).device)).softmax(1)[0].cpu()
    answer = model.predict("photos/a.png", top=2)
    best = shares.argsort(descending=True)[:2].tolist()
    assert [name for name, _ in answer.classes] == [f"class {place}" for place in best]
    assert [share for _, share in answer.classes] == pytest.approx(shares[best].tolist(), abs=1e-5)
    assert repr(answer).startswith(f"photos/a.png: {answer.label} {100 * (answer.probability or 0):.1f} %, class ")


def test_an_image_is_a_path_bytes_an_image_of_pillows_or_an_array_and_several_are_answered_in_order() -> None:
    model = vitpipe.load(Path("store/test/weights"))
    path = Path("photos/a.png")
    with Image.open(path) as opened:
        forms = ["photos/a.png", path, path.read_bytes(), opened, np.array(opened), np.array(opened.convert("RGBA"))]
        answers = model.predict(forms)
    assert len({answer.classes for answer in answers}) == 1 and [str(one.image) for one in answers][2] == "image 2"
    grey = np.full((9, 7), 100, np.uint8)
    assert torch.equal(model.preprocess(grey), model.preprocess(np.repeat(grey[:, :, None], 3, axis=2)))
    folder = vitpipe.predict(model, "photos")
    assert [str(one.image) for one in folder] == ["photos/a.png", "photos/deep/b.jpg"]
    assert vitpipe.predict("store/test/weights", ["photos/a.png", "broken.jpg", "photos/a.png"])[1].reason
    assert len(repr(folder).splitlines()) == 2
    model.train()
    assert model.predict([path] * len(forms))[0].classes == answers[0].classes and model.training


def test_few_shots_give_the_numbers_of_the_stage(world: Path) -> None:
    wanted = load_artifact(f"file://{world}/store/test/probe")
    assert isinstance(wanted, Score) and len(set(wanted.per_seed)) > 1
    model = vitpipe.load("store/test/weights")
    torch.set_num_threads(cpus() + 1)
    for given in ("store/test/weights", "store/test/weights/a1/native", model):
        found = vitpipe.fewshot(given, "store/test/colours", shots=(5, 1), batch_images=16)
        assert found.per_seed == wanted.per_seed and found.value == wanted.value
    assert torch.get_num_threads() == cpus() + 1, "a person's own setting stays"
    torch.set_num_threads(cpus())
    assert set(found.by_shots) == {5, 1} and found.num_test == 30 and found.std is not None
    assert repr(found).startswith(f"colours, 5 shots: {100 * found.value:.1f} ± ")
    assert found.short_by_shots == {5: 0, 1: 0} and "fewer" not in repr(found)
    short = vitpipe.fewshot("store/test/weights", "store/test/colours", shots=25, seeds=(0,))
    assert short.short_by_shots == {25: 3} and repr(short).endswith("30 test images, fewer in 3 classes)")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert vitpipe.fewshot(model, "file://./store/test/colours").value == pytest.approx(1 / 3), "the model as it is now"


def test_a_conversion_is_proved_and_opens_in_its_library(world: Path, tmp_path: Path) -> None:
    done = vitpipe.convert("store/test/backbone", to=["native", "timm"], folder=tmp_path / "out")
    assert done.formats == ("native", "timm") and done.parity["timm"]["max_abs_difference"] < 1e-5
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "labels.json",
        "native",
        "parity.json",
        "timm",
    ]
    theirs = timm.create_model(f"local-dir:{tmp_path}/out/timm", pretrained=True).eval()
    model = vitpipe.load(done)
    assert torch.equal(theirs.head.weight, random_state(tiny())["head.weight"]) and model.labels[1] == "class 1"

    vitpipe.convert("store/test/backbone", to=["native", "timm"], folder=tmp_path / "out")  # the same stays
    again = vitpipe.convert(tmp_path / "out/timm/model.safetensors", folder=tmp_path / "back")
    assert torch.equal(vitpipe.load(again).head.weight, model.head.weight)
    assert again.notes and "timm" in repr(again)
    with torch.no_grad():
        model.head.bias.add_(1)
    vitpipe.convert(model, folder=tmp_path / "changed")
    changed = vitpipe.load(tmp_path / "changed")
    assert torch.equal(changed.head.bias, model.head.bias.cpu()) and changed.labels == model.labels
    with pytest.raises(vitpipe.VitpipeError, match="stand in the way"):
        vitpipe.convert(model, folder=tmp_path / "back")
    assert torch.equal(vitpipe.load(tmp_path / "back").head.bias + 1, model.head.bias.cpu()), "nothing was touched"


def test_a_run_is_read(world: Path) -> None:
    found = vitpipe.read_run("store/test")
    (row,) = found.scores.to_dict("records")
    assert row["node"] == "probe" and row["per_seed"] == load_artifact(f"file://{world}/store/test/probe").per_seed
    assert row["value"] == np.mean(row["per_seed"]) and row["std"] == np.std(row["per_seed"], ddof=1)
    states = dict(zip(found.nodes["node"], found.nodes["state"], strict=True))
    assert set(states) == {"colours", "probe", "table"} and found.name == "test"
    assert found.metrics("curved")["loss"].tolist() == [1, 0.5]
    assert found.config["nodes"]["probe"]["config"]["method"] == "fewshot"
    assert found.page == world / "store/test/table/a1/index.html" and "probe" in repr(found)


def test_without_pandas_rows_print_as_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    rows = table([{"node": "a", "value": 0.123456}, {"node": "bcd", "more": 1}])
    assert isinstance(rows, Rows) and rows[1] == {"node": "bcd", "value": None, "more": 1}
    assert repr(rows) == "node  value   more\na     0.1235  -\nbcd   -       1"


REFUSED: dict[str, tuple[Callable[[], Any], int, str]] = {
    "a score without weights": (lambda: vitpipe.load("store/test/probe"), 2, "Score without weights"),
    "nothing": (lambda: vitpipe.load("store/test/weight"), 2, "Did you mean 'weights'"),
    "data": (lambda: vitpipe.load("store/test/colours"), 2, "ShardSet without weights"),
    "a missing image": (lambda: vitpipe.predict("store/test/weights", "photos/c.png"), 2, "no such file"),
    "a broken image": (lambda: vitpipe.predict("store/test/weights", "broken.jpg"), 2, "broken.jpg"),
    "floats": (lambda: vitpipe.predict("store/test/weights", np.zeros((8, 8, 3))), 2, "float64"),
    "no classes": (lambda: vitpipe.predict("store/test/weights", "photos", top=0), 2, "1 or more"),
    "few-shot on weights": (lambda: vitpipe.fewshot("store/test/weights", "store/test/weights"), 2, "it is a Weights"),
    "few-shot of a score": (lambda: vitpipe.fewshot("store/test/probe", "store/test/colours"), 2, "without weights"),
    "a foreign module": (lambda: vitpipe.fewshot(torch.nn.Linear(2, 2), "store/test/colours"), 2, "convert"),
    "a wrong field": (lambda: vitpipe.fewshot("store/test/weights", "store/test/colours", l3=1), 2, "l3"),
    "many shots": (
        lambda: vitpipe.fewshot("store/test/weights", "store/test/colours", 99, strict_shots=True),
        4,
        "classes have fewer",
    ),
    "no folder": (lambda: vitpipe.convert("store/test/weights"), 2, "no folder"),
    "no format": (lambda: vitpipe.convert("store/test/weights", "keras", "out"), 2, "keras"),
    "no source": (lambda: vitpipe.convert("nowhere.safetensors", "timm", "out"), 2, "nowhere.safetensors"),
    "a pickle": (lambda: vitpipe.convert("model.pt", "timm", "out"), 2, "pickle"),
    "a score converted": (lambda: vitpipe.convert("store/test/probe", "timm", "out"), 2, "without weights"),
    "what weights say": (lambda: vitpipe.convert("store/test/weights", "timm", "out", gelu="erf"), 2, "gelu"),
    "no run": (lambda: vitpipe.read_run("store/tset"), 2, "Did you mean 'test'"),
    "no curve": (lambda: vitpipe.read_run("store/test").metrics("probe"), 2, "without a curve"),
    "no node": (lambda: vitpipe.read_run("store/test").metrics("prob"), 2, "probe"),
    "no shards": (lambda: vitpipe.ShardStream("store/test/nothing"), 2, "nothing is committed there"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_one_paragraph_with_the_right_code(case: str) -> None:
    call, code, words = REFUSED[case]
    with pytest.raises(vitpipe.VitpipeError) as caught:
        call()
    assert caught.value.code == code and words.lower() in str(caught.value).lower()
    assert caught.value.found and caught.value.do and "\n" not in str(caught.value)
    assert not Path("out").exists()


def test_a_stream_needs_no_more_than_its_place(world: Path) -> None:
    """In webdataset's own pipeline, from a relative path, with the user's cache; an epoch is every image once."""
    import webdataset as wds

    seen = []
    stream = vitpipe.ShardStream("store/test/colours")
    for sample in wds.DataPipeline(stream.samples()):
        seen.append(sample)
        if len(seen) == 120:
            break
    assert {"__key__", "png", "cls"} <= set(seen[0]) and isinstance(seen[0]["png"], bytes)
    first, second = ([sample["__key__"] for sample in seen[at : at + 60]] for at in (0, 60))
    assert len(set(first)) == 60 and set(first) == set(second) and first != second
    batches = vitpipe.ShardStream("store/test/colours", 4, cache=world / "other").samples().to_tuple("__key__")
    assert [key for _, (key,) in zip(range(120), batches, strict=False)] == first + second, "a batch changes no order"
    assert list((world / "cache/vitpipe/shards").glob("??/*.tar"))
    decoded = next(iter(vitpipe.ShardStream("store/test/colours", 4, 16)))
    assert decoded[0].shape == (4, 3, 16, 16)


def test_the_version_is_said_and_nothing_heavy_is_imported_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.invoke(["--version"]) == 0 and capsys.readouterr().out == f"{vitpipe.__version__}\n"
    names = ["load", "predict", "fewshot", "read_run", "convert", "ShardStream", "__version__"]
    assert set(names) <= set(vitpipe.__all__) and all(hasattr(vitpipe, name) for name in names)
    code = (
        "import sys, vitpipe; vitpipe.__version__; dir(vitpipe); vitpipe.read_run, vitpipe.convert, vitpipe.load;"
        "sys.exit(len({'torch', 'ray', 'pandas', 'boto3'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_curves_of_siblings_are_asked_for_one_by_one(tmp_path: Path) -> None:
    for node in ("many/one", "many/two"):
        ctx = make_context(tmp_path, node, TaskResources())
        commit(ctx, Report(files=(ctx.out.put("metrics.jsonl", b'{"step": 1}\n'),), headline="x"), stage="report")
    (tmp_path / "store/test/spec.yaml").write_text(SPEC)
    found = vitpipe.read_run(tmp_path / "store/test")
    assert len(found.metrics("many/one")) == 1
    with pytest.raises(vitpipe.VitpipeError, match=r"stands for 2 siblings.*many/one, many/two"):
        found.metrics("many")
