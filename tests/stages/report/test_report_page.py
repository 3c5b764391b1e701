"""The page from committed artifacts: true to its records, safe, whole without a network, readable in a real browser."""

import base64
import csv
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from huggingface_hub import ModelCard
from inprocess import commit, make_context
from PIL import Image
from synthetic import checkpoint, shards, weights

from vitpipe.infra.errors import IntegrityError
from vitpipe.stages.artifacts import Score
from vitpipe.stages.contract import Inputs
from vitpipe.stages.report.config import ReportConfig, ReportResources
from vitpipe.stages.report.run import run

EVIL = "<script>alert(1)</script>"
FINETUNE = {
    "method": "finetune", "image_px": 16, "batch_images": 12, "steps": 60, "train_per_class": 5, "num_train": 50,
    "crop": "none", "flip": False, "eval_resize": "squash", "seeds": [0, 1, 2],
}  # fmt: skip


def score(path, node, per_seed, protocol, inputs=None, content=None, **facts):
    ctx = make_context(path, node, None)
    files = (ctx.out.put("score.json", json.dumps(content).encode()),) if content else ()
    made = Score(benchmark="cifar10", metric="top1", value=float(np.mean(per_seed)), per_seed=per_seed,
                 protocol=protocol, num_test=100, files=files, **facts)  # fmt: skip
    return commit(ctx, made, stage=protocol["method"], inputs=inputs, config={"peak_lr": [0.01, 0.03]})


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    path = tmp_path_factory.mktemp("report")
    data = shards(path, "colours", ("red", EVIL, 'a"b\udce9'))
    pretrained, backbone = weights(path), checkpoint(path)
    given = {"data": [data], "weights": [pretrained]}
    tuned = {
        "chosen": {"peak_lr": 0.03},
        "dev_scores": {"0.01": 0.5, "0.03": 0.7},
        "model": pretrained.model.model_copy(update={"classes": 10}),
    }
    scores = [
        score(path, "transfer", (0.74, 0.75, 0.76), FINETUNE | {"pretrained": True}, given, **tuned),
        score(path, "scratch", (0.5, 0.52, 0.54), FINETUNE | {"pretrained": False}, {"data": [data]}),
        score(path, "probe", (0.68, 0.7), {"method": "fewshot", "features": "weights", "shots": 5, "seeds": [0, 1]},
              given, {"by_shots": {"1": [0.4, 0.42], "5": [0.68, 0.7], "25": [0.8, 0.8]},
                      "short_by_shots": {"1": 0, "5": 1, "25": 3}}),
    ]  # fmt: skip
    ctx = make_context(path, "table", ReportResources(), run="quickstart")
    report = run(ReportConfig(), Inputs({"scores": scores, "checkpoint": [backbone]}), ctx)
    files = {file.path: ctx.out.node.read(file.at) for file in report.files}
    return report, files, scores, path


def test_the_headline_states_the_gain_with_its_spread(world):
    report, files, _, _ = world
    assert report.headline == "Pretraining lifts CIFAR-10 from 52.0 ± 2.0 % to 75.0 ± 1.0 %: +23.0 points over 3 seeds"
    assert json.loads(files["report.json"])["gains"] == [
        {
            "pretrained": "transfer",
            "scratch": "scratch",
            "points": pytest.approx(23),
            "std": pytest.approx(1),
            "clear": True,
        }
    ]


def test_a_score_of_fewer_images_than_asked_for_says_so(world):
    _, files, _, _ = world
    assert "5 labels per class, fewer in 1 class, of 25 fewer in 3 classes" in files["index.html"].decode()


class Loads(HTMLParser):
    """Every address a browser would fetch, and every tag."""

    def __init__(self):
        super().__init__()
        self.addresses, self.tags, self.saved = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "a" and "download" in dict(attrs):
            self.saved.append(dict(attrs)["href"])
            return
        self.addresses += [value for name, value in attrs if name in ("src", "href", "data", "srcset", "action")]


def loads(page: bytes) -> Loads:
    parser = Loads()
    parser.feed(page.decode())
    return parser


def test_the_page_loads_nothing_and_runs_nothing(world):
    _, files, _, _ = world
    page = files["index.html"]
    parser = loads(page)
    assert parser.addresses and all(address.startswith(("data:image/", "#")) for address in parser.addresses)
    assert [address.split(";")[0] for address in parser.saved] == ["data:text/csv", "data:application/x-tex"]
    assert base64.b64decode(parser.saved[0].split(",")[1]) == files["results.csv"]
    assert not {"script", "link", "iframe", "object", "base"} & set(parser.tags)
    assert not re.search(rb"url\(|@import|javascript:|\son\w+=", page)
    assert b"default-src 'none'" in page
    assert loads(b'<img src="https://x/y.png">').addresses == ["https://x/y.png"], "the detector itself"


def test_names_from_data_are_escaped(world):
    _, files, _, _ = world
    page = files["index.html"].decode()
    assert EVIL not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert 'a"b' not in page and "a&#34;b\\udce9" in page, "bytes that are not UTF-8 are shown as such"


def test_every_number_leads_to_digests(world):
    _, files, scores, _ = world
    page = files["index.html"].decode()
    for one in scores:
        assert one.origin.record_sha256 in page and one.origin.fingerprint in page
    assert [link["node"] for link in json.loads(files["report.json"])["lineage"]] == [
        "colours", "weights", "transfer", "scratch", "probe", "backbone",
    ]  # fmt: skip
    for part in ("Training loss", "Patch embedding", "Position embedding", "CIFAR-10", "Table 2", "99.50"):
        assert part in page


def test_tables_for_other_tools(world):
    _, files, _, _ = world
    lines = list(csv.DictReader(io.StringIO(files["results.csv"].decode())))
    assert [(line["benchmark"], line["arm"], line["top1"], line["top1_err"]) for line in lines] == [
        ("cifar10", "fine-tuned", "75.000", "25.000"),
        ("cifar10", "from scratch", "52.000", "48.000"),
        ("cifar10", "few-shot ridge on frozen features", "69.000", "31.000"),
    ]
    card = ModelCard(files["README.md"].decode())
    assert card.data.eval_results[0].metric_value == 75.0 and "75.0 ± 1.0 % | 99.15 % (Table 2)" in card.text


def test_an_altered_file_behind_the_page_is_refused(world, tmp_path):
    _, _, scores, _ = world
    backbone = checkpoint(tmp_path, "flipped")
    store = backbone.store()
    at = backbone.file("metrics.jsonl").at
    store.write(at, store.read(at).replace(b"1", b"2", 1))
    ctx = make_context(tmp_path, "table", ReportResources())
    with pytest.raises(IntegrityError, match=r"metrics\.jsonl"):
        run(ReportConfig(), Inputs({"scores": scores, "checkpoint": [backbone]}), ctx)


def test_a_page_of_scores_alone(tmp_path):
    alone = score(tmp_path, "alone", (0.9,), FINETUNE | {"pretrained": True})
    ctx = make_context(tmp_path, "table", ReportResources())
    assert run(ReportConfig(title="One"), Inputs({"scores": [alone]}), ctx).headline == "CIFAR-10: 90.0 % fine-tuned"


needs_chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium: apt install chromium")


def browse(page: bytes, folder, width):
    """Open the page in Chromium; its picture and what it wrote to the console."""
    (folder / "index.html").write_bytes(page)
    picture = folder / "page.png"
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
               "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", f"--window-size={width},1400",
               f"--screenshot={picture}", f"file://{folder / 'index.html'}"]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert picture.exists(), ended.stderr
    console = [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
    return Image.open(picture).convert("RGB"), console


@needs_chromium
@pytest.mark.parametrize("width", [1280, 500])
def test_opens_in_a_browser_without_errors(world, tmp_path, width):
    _, files, _, _ = world
    picture, console = browse(files["index.html"], tmp_path, width)
    assert console == []
    assert len(picture.getcolors(1 << 24)) > 50, "charts and pictures are drawn"


@needs_chromium
def test_the_browser_would_complain_about_a_page_that_loads_something(world, tmp_path):
    _, files, _, _ = world
    page = files["index.html"].replace(b"<main>", b'<main><img src="https://example.org/pixel.png">')
    assert any("Content Security Policy" in line for line in browse(page, tmp_path, 500)[1])
