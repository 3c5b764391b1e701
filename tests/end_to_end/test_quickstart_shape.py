"""The quickstart's shape at a tiny size, from YAML to the page; then everything a user may do to a finished run."""

import json
import re
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
import webdataset as wds
from driving import finish, kill, losses, progress, start, vitpipe, wait_for, write_spec
from prometheus_server import queries, rules

from vitpipe.infra import metrics

NODES = ("glyphs", "digits", "backbone", "weights", "transfer", "probe", "table")
DEAD_RAY = {"RAY_ADDRESS": "127.0.0.1:1"}  # whoever starts or joins a Ray with this address fails
NOT_HERE = {
    "vitpipe_validation_loss", "vitpipe_validation_accuracy", "vitpipe_watched_accuracy", "vitpipe_fewshot_accuracy",
    "vitpipe_model_flops_utilization_ratio",
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; its folder in the store."""
    cwd = tmp_path_factory.mktemp("quickstart")
    process = start("run", write_spec(cwd, "tiny", transfer=True), cwd=cwd, env={"VITPIPE_METRICS": "127.0.0.1:0"})
    out: Path = process.log.with_suffix(".out")  # type: ignore[attr-defined]
    address = wait_for("the metrics", lambda: re.search(r"^metrics (http\S+)", out.read_text(), re.M), process)[1]
    (cwd / "scraped").write_text("")
    while process.poll() is None:
        with (cwd / "scraped").open("a") as file:
            file.write(_scrape(address))
        time.sleep(0.5)
    done = finish(process)
    assert "127.0.0.1" in done.stdout + done.stderr, "the dashboard's address is printed"
    return cwd / "runs" / "tiny"


def _scrape(address: str) -> str:
    """What the run serves now, asked as Prometheus asks."""
    asked = urllib.request.Request(address, headers={"X-Prometheus-Scrape-Timeout-Seconds": "10"})
    with suppress(OSError), urllib.request.urlopen(asked, timeout=10) as answer:
        return str(answer.read().decode())
    return ""


def test_every_rule_and_panel_asks_for_series_that_a_run_has(finished: Path) -> None:
    """But those of what this run does not do. `tests/faults/test_alerts.py` has all of them under a real Prometheus."""
    samples = [line for line in (finished.parents[1] / "scraped").read_text().splitlines() if line[:1] not in "#"]
    served = {line.partition("{")[0] for line in samples}
    while_running = {metrics.PREFIX + name for name in metrics.WHILE_RUNNING}  # for less than one look, it may be
    for title, query in {**queries(), **rules()}.items():
        names = set(re.findall(r"\bvitpipe_\w+", query))
        assert names <= served | NOT_HERE | while_running, title
    assert not served & NOT_HERE
    assert 'vitpipe_driver_ended_fence{benchmark="",node="",rank="",run="tiny"} 1.0' in samples, "its end is heard"
    states = [line for line in samples if line.startswith("vitpipe_stage_state{")]
    assert {re.search(r'node="(\w+)"', line)[1] for line in states if line.endswith(" 2.0")} == set(NODES)  # type: ignore[index]
    of_ranks = [line for line in samples if line.startswith("vitpipe_storage_written_bytes_total{")]
    assert max(float(line.split()[-1]) for line in of_ranks if 'node="backbone"' in line) > 1000


def records(run: Path) -> dict[str, bytes]:
    return {node: (run / node / "record.json").read_bytes() for node in NODES}


def test_every_node_commits_and_the_page_stands_alone(finished: Path) -> None:
    found = {node: json.loads(content) for node, content in records(finished).items()}
    page = next(file for file in found["table"]["files"] if file["path"] == "index.html")
    html = (finished / "table" / page["at"]).read_text()
    assert "<svg" in html and 'src="http' not in html and "<link" not in html
    assert found["transfer"]["output"]["num_test"] == found["probe"]["output"]["num_test"] > 0
    assert losses(finished)[0][0] == 1 and losses(finished)[-1][0] == 12
    parity = json.loads((finished / "weights" / "a1" / "parity.json").read_text())
    assert set(parity) >= {"native", "timm"}


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files to the collector
def test_plain_webdataset_reads_the_shards(finished: Path) -> None:
    shards = sorted(str(path) for path in (finished / "glyphs" / "a1").glob("train-*.tar"))
    data = wds.WebDataset(shards, shardshuffle=False).decode("pil").to_tuple("jpg;jpeg;png;webp", "cls;json")
    images = list(data)
    assert len(images) == 8 * 32 and {label for _, label in images} == set(range(8))


def test_the_same_command_again_runs_nothing(finished: Path) -> None:
    before, cwd = records(finished), finished.parents[1]
    lease = (finished / "lease.json").read_bytes()
    vitpipe("run", "tiny.yaml", cwd=cwd, env=DEAD_RAY)
    assert records(finished) == before and (finished / "lease.json").read_bytes() == lease


def test_the_dead_address_would_have_been_noticed(finished: Path) -> None:
    done = vitpipe("run", "tiny.yaml", "name=other", "--json", cwd=finished.parents[1], env=DEAD_RAY, expect=7)
    assert json.loads(done.stdout)["error"]["code"] == 7


def test_a_changed_recipe_is_drift_and_starts_nothing(finished: Path) -> None:
    before, cwd = records(finished), finished.parents[1]
    done = vitpipe("run", "tiny.yaml", "nodes.backbone.config.optimizer.peak_lr=3e-3", cwd=cwd, expect=3)
    assert "config.optimizer.peak_lr 0.001 -> 0.003" in done.stderr and "--replace" in done.stderr
    assert records(finished) == before


def test_artifacts_are_fetched_and_verified(finished: Path, tmp_path: Path) -> None:
    cwd = finished.parents[1]
    vitpipe("artifacts", "get", finished, "weights", tmp_path / "w", cwd=cwd)
    assert (tmp_path / "w" / "native" / "model.safetensors").exists()
    assert (tmp_path / "w" / "timm" / "config.json").exists()
    vitpipe("artifacts", "verify", "file://./runs/tiny", cwd=cwd)
    victim = next((finished / "digits" / "a1").glob("*.tar"))
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        done = vitpipe("artifacts", "verify", finished, cwd=cwd, expect=8)
        assert victim.name in done.stderr
    finally:
        victim.write_bytes(whole)
    vitpipe("artifacts", "verify", finished, cwd=cwd)


@pytest.mark.timeout(900)
def test_replace_killed_and_typed_again(finished: Path) -> None:
    """Runs the changed node and what depends on it once, and keeps the old records. Last: it changes the run."""
    before, cwd = records(finished), finished.parents[1]
    command = ("run", "tiny.yaml", "nodes.backbone.config.optimizer.peak_lr=3e-3", "--replace", "backbone")
    process = start(*command, cwd=cwd)
    wait_for("a step of the new backbone", lambda: progress(finished, "backbone").get("fence", 0) > 1, process)
    kill(process)
    vitpipe(*command, cwd=cwd)
    after = records(finished)
    dependents = {"backbone", "weights", "transfer", "probe", "table"}
    assert {node for node in NODES if after[node] != before[node]} == dependents
    for node in dependents:
        assert (finished / node / "record.1.json").read_bytes() == before[node]
        assert len(list((finished / node).glob("record.*.json"))) == 1
    vitpipe(*command, cwd=cwd, env=DEAD_RAY)
    assert records(finished) == after
