"""`vitpipe predict` through the command line: weights by every name, images of every kind, and what is refused."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Vitpipe, typed
from inprocess import commit, make_context
from PIL import Image
from synthetic import TINY, shards, weights

from vitpipe.infra.storage.opening import open_store
from vitpipe.pipeline.cli import main as cli
from vitpipe.stages.artifacts import Score, Weights
from vitpipe.stages.images.evaluate import EvalImages, fitted
from vitpipe.stages.preparation import EvalWay
from vitpipe.stages.record import load_artifact
from vitpipe.stages.settings import TaskResources
from vitpipe.stages.vit.build import build_model
from vitpipe.stages.vit.native import load_native, save_native


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in `store/test` with native weights, and five photographs in a tree of folders."""
    path = tmp_path_factory.mktemp("predict")
    shards(path)
    weights(path)
    (path / "store/test/spec.yaml").write_text("version: 1\n")
    rng = np.random.default_rng(0)
    for name in ("b.png", "a.jpg", "sub/d.png", "sub/c.webp", "other/e.PNG"):
        place = path / "photos" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)).save(place)
    (path / "photos/notes.txt").write_text("no image")
    return path


@pytest.fixture
def vitpipe(world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Vitpipe:
    """Runs a command where the run and the photographs lie; its exit code, output and errors."""
    monkeypatch.chdir(world)
    monkeypatch.setenv("XDG_STATE_HOME", str(world / "state"))

    return typed(capsys, "predict")


def by_hand(world: Path, name: str, head: str = "softmax") -> dict[str, float]:
    """Every class and its probability, without any of the code under test but the model."""
    path = world / "store/test/weights/a1/native"
    settings, state = load_native(path)
    model = build_model(settings).eval()
    model.load_state_dict(state)
    pixels = torch.from_numpy(np.array(Image.open(world / "photos" / name).convert("RGB"))).permute(2, 0, 1)[None]
    squashed = torch.nn.functional.interpolate(pixels, (16, 16), mode="bilinear", antialias=True)
    with torch.inference_mode():
        logits = model(squashed)[0]
    shares = logits.softmax(0) if head == "softmax" else logits.sigmoid()
    return {f"class {number}": float(share) for number, share in enumerate(shares)}


def predicted(out: str) -> dict[str, dict[str, float]]:
    found = json.loads(out)["predictions"]
    return {Path(one["image"]).name: {each["label"]: each["probability"] for each in one["classes"]} for one in found}


def test_probabilities_are_the_models_own(vitpipe: Vitpipe, world: Path) -> None:
    code, out, err = vitpipe("store/test/weights", "photos", "--json")
    assert (code, err) == (0, "")
    found = predicted(out)
    for name, classes in found.items():
        path = "photos/" + next(str(p.relative_to(world / "photos")) for p in (world / "photos").rglob(name))
        assert classes == pytest.approx(by_hand(world, path.removeprefix("photos/")), abs=1e-5)  # fp32, another batch
        assert list(classes.values()) == sorted(classes.values(), reverse=True), "the best first"
        assert sum(classes.values()) == pytest.approx(1, abs=1e-5)
    assert found["a.jpg"] != pytest.approx(found["b.png"], abs=1e-3), "images are told apart"


def test_a_folder_is_read_in_order_and_none_twice(vitpipe: Vitpipe) -> None:
    _, out, _ = vitpipe("store/test/weights", "photos/sub/d.png", "photos", "photos/b.png", "--json")
    assert [one["image"] for one in json.loads(out)["predictions"]] == [
        "photos/sub/d.png", "photos/a.jpg", "photos/b.png", "photos/other/e.PNG", "photos/sub/c.webp",
    ]  # fmt: skip


def test_plain_lines_for_a_log(vitpipe: Vitpipe, world: Path) -> None:
    code, out, _ = vitpipe("store/test/weights", "photos/a.jpg", "--top", "2")
    best = sorted(by_hand(world, "a.jpg").items(), key=lambda one: -one[1])[:2]
    words = ", ".join(f"{name} {100 * share:.1f} %" for name, share in best)
    assert (code, out) == (0, f"photos/a.jpg: {words}\n")


def test_a_table_for_a_person(vitpipe: Vitpipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitpipe.pipeline.cli.predict_verb.is_terminal", lambda: True)
    code, out, _ = vitpipe("store/test/weights", "photos/a.jpg", "photos/b.png", "--top", "3")
    lines = out.splitlines()
    assert code == 0 and lines[0].split() == ["image", "class", "probability"]
    assert len(lines) == 1 + 3 + 1 + 3 and lines[1].startswith("photos/a.jpg") and lines[5].startswith("photos/b.png")


NAMES = [
    "store/test/weights",
    "file://./store/test/weights",
    "store/test/weights/a1",
    "store/test/weights/a1/native",
    "store/test/weights/a1/native/model.safetensors",
    "file://./store/test/weights/a1/native",
    "here.yaml/weights",
]


def write_yaml(world: Path) -> None:
    nodes = "nodes:\n  data: {stage: ingest, config: {source: {kind: digits}}}\n"
    (world / "here.yaml").write_text(f"version: 1\nname: test\nstore: file://./store\n{nodes}")


@pytest.mark.parametrize("name", NAMES)
def test_weights_by_every_name(name: str, vitpipe: Vitpipe, world: Path) -> None:
    write_yaml(world)
    code, out, err = vitpipe(name, "photos/a.jpg", "--json")
    assert (code, err) == (0, "")
    assert predicted(out)["a.jpg"] == pytest.approx(by_hand(world, "a.jpg"), abs=1e-5)


def test_what_artifacts_get_wrote(vitpipe: Vitpipe, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.invoke(["artifacts", "get", "store/test", "weights", "fetched"]) == 0
    capsys.readouterr()
    code, out, _ = vitpipe("fetched", "photos/a.jpg", "--json")
    assert code == 0 and predicted(out)["a.jpg"] == pytest.approx(by_hand(world, "a.jpg"), abs=1e-5)


@pytest.mark.s3
def test_weights_in_a_bucket(vitpipe: Vitpipe, world: Path, s3_uri: str) -> None:
    here, there = open_store(f"file://{world}/store"), open_store(s3_uri)
    for entry in here.list("test/weights/"):
        there.write(entry.path, here.read(entry.path))
    there.write("test/spec.yaml", b"version: 1\n")
    code, out, err = vitpipe(f"{s3_uri}/test/weights", "photos/a.jpg", "--json")
    assert (code, err) == (0, "") and predicted(out)["a.jpg"] == pytest.approx(by_hand(world, "a.jpg"), abs=1e-5)
    code, _, err = vitpipe(f"{s3_uri}/test/weight", "photos/a.jpg")
    assert code == 2 and "Did you mean 'weights'" in err


def with_labels(world: Path, node: str, labels: dict[str, Any], **facts: Any) -> None:
    """A copy of the weights under another node, with other labels, or as a Score."""
    source = weights(world, f"{node}-source")
    ctx = make_context(world, node, TaskResources())
    files = [ctx.out.put(file.path, source.read(file.path)) for file in source.files if file.path != "labels.json"]
    files.append(ctx.out.put("labels.json", json.dumps(labels).encode()))
    made: Weights | Score = Weights(files=tuple(files), formats=("native",), model=source.model)
    if facts:
        files.append(ctx.out.put("score.json", json.dumps(facts).encode()))
        made = Score(files=tuple(files), benchmark="x", metric="top1", value=0.5, per_seed=(0.5,), num_test=1,
                     model=source.model, **facts)  # fmt: skip
    commit(ctx, made)


NAMED = {str(number): f"class {number}" for number in range(5)}


def test_a_sigmoid_head_gives_each_class_by_itself(vitpipe: Vitpipe, world: Path) -> None:
    with_labels(world, "many", {"id2label": NAMED, "objective": "sigmoid"})
    _, out, _ = vitpipe("store/test/many", "photos/a.jpg", "--json")
    assert json.loads(out)["head"] == "sigmoid"
    assert predicted(out)["a.jpg"] == pytest.approx(by_hand(world, "a.jpg", "sigmoid"), abs=1e-5)
    assert predicted(out)["a.jpg"] != pytest.approx(by_hand(world, "a.jpg"), abs=1e-3)


def test_a_sibling_is_named_by_its_id(vitpipe: Vitpipe, world: Path) -> None:
    with_labels(world, "fold/one", {"id2label": NAMED})
    code, out, _ = vitpipe("store/test/fold/one", "photos/a.jpg", "--json")
    assert code == 0 and predicted(out)["a.jpg"] == pytest.approx(by_hand(world, "a.jpg"), abs=1e-5)


def test_a_score_brings_its_own_preparation(vitpipe: Vitpipe, world: Path) -> None:
    """Its protocol says: the shorter side to 20 px, then the centre; as the evaluation reader does it."""
    protocol = {"method": "finetune", "eval_resize": "resmall_crop", "crop_px": 20, "antialias": False}
    with_labels(world, "transfer", {"id2label": NAMED}, protocol=protocol)
    code, out, _ = vitpipe("store/test/transfer", "photos/a.jpg", "--json")
    assert code == 0
    pixels = fitted(np.array(Image.open(world / "photos/a.jpg").convert("RGB")), 16, EvalWay("resmall_crop", 20, False))
    settings, state = load_native(world / "store/test/weights/a1/native")
    model = build_model(settings).eval()
    model.load_state_dict(state)
    with torch.inference_mode():
        shares = model(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]).softmax(1)[0]
    found = predicted(out)["a.jpg"]
    assert [found[f"class {number}"] for number in range(5)] == pytest.approx(shares.tolist(), abs=1e-5)
    assert found != pytest.approx(by_hand(world, "a.jpg"), abs=1e-3), "the preparation counts"
    code, out, _ = vitpipe(world / "store/test/transfer/a1", "photos/a.jpg", "--json")
    assert code == 0 and predicted(out)["a.jpg"] == found, "a fetched folder tells the same"


def test_the_reader_is_the_evaluations(world: Path, tmp_path: Path) -> None:
    """One image of a shard, through EvalImages and through `fitted`."""
    data = load_artifact(f"file://{world}/store/test/colours")
    for fit in ("squash", "resize_crop", "resmall_crop", "area_small"):
        images = EvalImages(data, "test", 12, fit, tmp_path)  # type: ignore[arg-type]
        whole = next(images.batches(1)).images_BCHW[0].permute(1, 2, 0).numpy()
        raw = images._pixels.pixels(0)
        assert np.array_equal(fitted(raw, 12, EvalWay(fit)), whole)  # type: ignore[arg-type]


def test_an_unreadable_image_is_named_and_the_others_are_predicted(vitpipe: Vitpipe, world: Path) -> None:
    mixed = world / "mixed"
    mixed.mkdir(exist_ok=True)
    good = (world / "photos/a.jpg").read_bytes()
    (mixed / "1.jpg").write_bytes(good)
    (mixed / "2.jpg").write_bytes(good[: len(good) // 2])
    (mixed / "3.png").write_bytes(b"GIF89a nothing of the kind")
    (mixed / "4.jpg").write_bytes(good)
    code, out, err = vitpipe("store/test/weights", "mixed")
    lines = out.splitlines()
    assert code == 2 and len(lines) == 4 and lines[0].split(": ")[1] == lines[3].split(": ")[1]
    assert "2.jpg: not readable: JPEG damaged" in lines[1] and "3.png" in err and "looks like a GIF" in err

    code, out, _ = vitpipe("store/test/weights", "mixed", "--json")
    found = json.loads(out)
    assert code == 2 and found["error"]["code"] == 2
    assert [Path(one["image"]).name for one in found["predictions"]] == ["1.jpg", "4.jpg"]
    assert [Path(one["image"]).name for one in found["unreadable"]] == ["2.jpg", "3.png"]


def refused(world: Path) -> dict[str, tuple[tuple[str, ...], int, str]]:
    return {
        "missing image": (("store/test/weights", "photos/a.jpeg"), 2, "did you mean photos/a.jpg"),
        "empty folder": (("store/test/weights", "empty"), 2, "no file below it"),
        "missing weights": (("store/nowhere/weights", "photos"), 2, "there is nothing"),
        "missing run": (("store/tset/weights", "photos"), 2, "did you mean 'test'"),
        "unknown node": (("store/test/weihts", "photos"), 2, "did you mean 'weights'"),
        "a run": (("store/test", "photos"), 2, "There are .*weights"),
        "a YAML alone": (("here.yaml", "photos"), 2, "it is a run: name one of its nodes"),
        "siblings": (("store/test/group", "photos"), 2, "stands for siblings. There are .*group/one"),
        "data": (("store/test/colours", "photos"), 2, "ShardSet without weights"),
        "a pickle": (("model.pt", "photos"), 2, "never opened"),
        "a pickle in disguise": (("disguised", "photos"), 2, "pickle"),
        "damaged weights": (("damaged", "photos"), 8, "damaged"),
        "a flipped byte": (("store/test/flipped", "photos"), 8, "model.safetensors"),
        "missing names": (("store/test/unnamed", "photos"), 8, "none for class 3"),
        "no number of classes": (("store/test/weights", "photos", "--top", "0"), 2, "top"),
        "no images": (("store/test/weights",), 2, "IMAGE"),
        "a bad scheme": (("gs://bucket/weights", "photos"), 2, "s3://bucket"),
    }


@pytest.mark.parametrize("case", refused(Path()))
def test_what_is_refused(case: str, vitpipe: Vitpipe, world: Path) -> None:
    prepare(world)
    args, wanted, words = refused(world)[case]
    code, out, err = vitpipe(*args)
    assert (code, out) == (wanted, "") and re.search(words, err, re.IGNORECASE), err


def prepare(world: Path) -> None:
    if (world / "empty").exists():
        return
    (world / "empty").mkdir()
    (world / "model.pt").write_bytes(b"\x80\x02")
    native = world / "store/test/weights/a1/native"
    data = (native / "model.safetensors").read_bytes()
    for name, content in (("disguised", b"PK\x03\x04" + data), ("damaged", data[: len(data) // 2])):
        (world / name).mkdir()
        (world / name / "model.safetensors").write_bytes(content)
        (world / name / "model.json").write_bytes((native / "model.json").read_bytes())
    write_yaml(world)
    with_labels(world, "group/one", {"id2label": NAMED})
    weights(world, "flipped")
    path = world / "store/test/flipped/a1/native/model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with_labels(world, "unnamed", {"id2label": {"0": "a", "1": "b", "2": "c"}})


def test_weights_without_a_head_predict_nothing(vitpipe: Vitpipe, world: Path) -> None:
    settings = TINY.model_copy(update={"classes": 0})
    save_native(world / "headless", build_model(settings).state_dict(), settings)
    code, _, err = vitpipe("headless", "photos")
    assert code == 2 and "no head" in err


def test_outputs_that_are_no_numbers_are_8(vitpipe: Vitpipe, world: Path) -> None:
    settings, state = load_native(world / "store/test/weights/a1/native")
    state["head.bias"][0] = float("nan")
    save_native(world / "diverged", state, settings)
    code, _, err = vitpipe("diverged", "photos")
    assert code == 8 and "not finite" in err


def test_weights_that_name_no_classes_number_them(vitpipe: Vitpipe, world: Path) -> None:
    settings, state = load_native(world / "store/test/weights/a1/native")
    save_native(world / "bare", state, settings)
    _, out, _ = vitpipe("bare", "photos/a.jpg", "--json")
    assert predicted(out)["a.jpg"] == pytest.approx(by_hand(world, "a.jpg"), abs=1e-5)


def test_asking_for_help_imports_no_torch() -> None:
    code = (
        "import sys; from vitpipe.pipeline.cli import main as cli; assert cli.invoke(['predict', '--help']) == 0;"
        "cli.invoke(['predict', 'nowhere/weights', 'nowhere.jpg']);"
        "sys.exit(len({'torch', 'ray', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0
