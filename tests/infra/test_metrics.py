"""One list of names, one exporter, and the same numbers wherever they arise."""

import json
import os
import pickle
import re
import threading
import time
import urllib.request
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from vitpipe.infra import metrics
from vitpipe.infra.errors import VitpipeError
from vitpipe.infra.exporter import PORTS, Address, Exporter, asked_address
from vitpipe.infra.storage import traffic
from vitpipe.infra.storage.opening import open_store


@pytest.fixture
def exporter():
    with Exporter(Address(port=0)) as exporter:
        yield exporter


@pytest.fixture(autouse=True)
def own_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("vitpipe.infra.exporter.targets_folder", lambda: tmp_path / "targets")
    return tmp_path / "targets"


def scrape(exporter: Exporter, **headers: str) -> dict[tuple[str, str, str], float]:
    with urllib.request.urlopen(urllib.request.Request(exporter.url, headers=headers), timeout=5) as answer:
        text = answer.read().decode()
    return {
        (sample.name, sample.labels["node"], sample.labels["rank"] or sample.labels["benchmark"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_numbers_of_a_node_are_served_with_their_labels(exporter: Exporter) -> None:
    door = pickle.loads(pickle.dumps(metrics.NodeMetrics("demo", "backbone")))
    door.set("loss", 2.5)
    door.set("loss", 2.25)
    door.inc("quarantined_samples_total", 2)
    door.inc("quarantined_samples_total")
    door.set("score", 0.75, benchmark="digits")
    served = scrape(exporter)
    assert served["vitpipe_loss", "backbone", ""] == 2.25
    assert served["vitpipe_quarantined_samples_total", "backbone", ""] == 3
    assert served["vitpipe_score", "backbone", "digits"] == 0.75


def test_progress_files_feed_the_same_exporter(exporter: Exporter) -> None:
    progress = {"step": 3, "total": 9, "loss": None, "images_per_second": 100.0, "ranks": [{"rank": 0}, {"rank": 1}]}
    metrics.publish_progress("demo", "backbone", progress)
    served = scrape(exporter)
    assert served["vitpipe_step", "backbone", ""] == 3
    assert served["vitpipe_target_steps", "backbone", ""] == 9
    assert served["vitpipe_ranks", "backbone", ""] == 2
    assert ("vitpipe_loss", "backbone", "") not in served


def test_the_age_of_the_last_commit_grows_until_it_is_scraped(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the rank's clock shows: it tells by it how old the commit was, and what passes since we measure."""
    now = 50.0
    monkeypatch.setattr("vitpipe.infra.exporter.time", SimpleNamespace(monotonic=lambda: now))
    metrics.NodeMetrics("demo", "backbone").set("last_commit_age_seconds", 5.0)
    now += 60
    assert scrape(exporter)["vitpipe_last_commit_age_seconds", "backbone", ""] == pytest.approx(65.0)
    metrics.NodeMetrics("demo", "backbone").set("last_commit_age_seconds", 66.0)
    assert scrape(exporter)["vitpipe_last_commit_age_seconds", "backbone", ""] == pytest.approx(66.0)


def test_a_node_that_does_not_run_has_no_speed(exporter: Exporter) -> None:
    door, other = metrics.NodeMetrics("demo", "backbone"), metrics.NodeMetrics("demo", "other")
    for node in (door, other):
        node.set("stage_state", metrics.STATES.index("running"))
        node.set("images_per_second", 9.0)
        node.set("loss", 2.5)
    door.set("stage_state", metrics.STATES.index("committed"))
    door.set("images_per_second", 9.0)  # it was on its way
    served = scrape(exporter)
    assert ("vitpipe_images_per_second", "backbone", "") not in served
    assert served["vitpipe_loss", "backbone", ""] == 2.5 and served["vitpipe_images_per_second", "other", ""] == 9.0
    door.set("stage_state", metrics.STATES.index("running"))
    door.set("images_per_second", 9.0)
    assert scrape(exporter)["vitpipe_images_per_second", "backbone", ""] == 9.0


def test_a_gang_that_shrank_has_no_series_of_lost_ranks(exporter: Exporter) -> None:
    for rank in range(3):
        metrics.NodeMetrics("demo", "backbone").set("rank_forward_seconds", 0.1, rank=str(rank))
        metrics.NodeMetrics("demo", "other").set("rank_forward_seconds", 0.1, rank=str(rank))
    metrics.publish_progress("demo", "backbone", {"step": 1, "ranks": [{"rank": 0}, {"rank": 1}]})
    served = [(node, rank) for name, node, rank in scrape(exporter) if name == "vitpipe_rank_forward_seconds"]
    assert sorted(served) == [("backbone", "0"), ("backbone", "1"), *(("other", str(rank)) for rank in range(3))]


def test_a_second_exporter_takes_the_next_port_and_gives_the_numbers_back(exporter: Exporter) -> None:
    port = int(exporter.url.split(":")[2].split("/")[0])
    with Exporter(Address(port=port)) as second:
        assert port < int(second.url.split(":")[2].split("/")[0]) < port + PORTS
        metrics.NodeMetrics("demo", "inner").set("step", 1)
    metrics.NodeMetrics("demo", "outer").set("step", 2)
    served = scrape(exporter)
    assert ("vitpipe_step", "outer", "") in served and ("vitpipe_step", "inner", "") not in served


def test_prometheus_finds_every_exporter_of_the_machine_by_file(own_targets: Path) -> None:
    own_targets.mkdir()
    (own_targets / f"{os.getuid()}-1.json").write_text('[{"targets": ["127.0.0.1:1"]}]')  # of a killed driver
    (own_targets / "4000000-1.json").write_text('[{"targets": ["127.0.0.1:1"]}]')  # another user's
    with Exporter(Address(port=0)) as first, Exporter(Address("0.0.0.0", 0)) as second:
        found = [json.loads(path.read_text()) for path in own_targets.glob(f"{os.getuid()}-*.json")]
        ports = {url.split(":")[2].split("/")[0] for url in (first.url, second.url)}
        assert sorted(found, key=str) == sorted([[{"targets": [f"127.0.0.1:{port}"]}] for port in ports], key=str)
    assert [path.name for path in own_targets.iterdir()] == ["4000000-1.json"]


def test_who_scrapes_hears_the_end_and_nobody_else_is_waited_for(exporter: Exporter) -> None:
    scrape(exporter)
    began = time.monotonic()
    exporter.say_farewell()
    assert time.monotonic() - began < 30, "a person who looked is not waited for"
    scrape(exporter, **{"X-Prometheus-Scrape-Timeout-Seconds": "10"})
    thread = threading.Thread(target=exporter.say_farewell)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    scrape(exporter)
    thread.join(0.5)
    assert thread.is_alive()
    scrape(exporter, **{"X-Prometheus-Scrape-Timeout-Seconds": "10"})
    thread.join(30)
    assert not thread.is_alive()


def test_a_signal_ends_the_wait(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitpipe.infra.exporter.FAREWELL_S", 3600.0)
    scrape(exporter, **{"X-Prometheus-Scrape-Timeout-Seconds": "10"})
    exporter.say_farewell(hurried=lambda: True)


@pytest.mark.parametrize(
    ("asked", "found"),
    [("", Address("127.0.0.1", 9464)), ("off", None), ("0.0.0.0:80", Address("0.0.0.0", 80)),
     ("[::]:9464", Address("::", 9464))],
)  # fmt: skip
def test_the_address_is_a_setting(asked: str, found: Address | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITPIPE_METRICS", asked)
    assert asked_address() == found
    for wrong in ("9464", "host:", ":9464", "host:99999", "on"):
        monkeypatch.setenv("VITPIPE_METRICS", wrong)
        with pytest.raises(VitpipeError, match="VITPIPE_METRICS"):
            asked_address()


def test_numbers_of_other_processes_add_up(exporter: Exporter) -> None:
    """Whoever begins again begins from nothing, and the sum never goes back."""
    door, seen = metrics.NodeMetrics("demo", "backbone"), []
    for _ in range(3):  # a process and its two restarts
        metrics.use(pending := metrics.Pending())
        door.inc("skipped_steps_total", 0)
        door.inc("skipped_steps_total")
        door.set("learning_rate", 0.1)
        metrics.use(exporter)
        pickle.loads(pickle.dumps(pending.take())).pass_on()
        assert not pending.take().growth
        seen.append(scrape(exporter)["vitpipe_skipped_steps_total", "backbone", ""])
    assert seen == [1, 2, 3] and scrape(exporter)["vitpipe_learning_rate", "backbone", ""] == 0.1


def test_without_a_sink_numbers_are_dropped_but_names_are_checked() -> None:
    door = metrics.NodeMetrics("demo", "backbone")
    door.set("loss", 1.0)
    with pytest.raises(VitpipeError, match="'learning_rate'"):
        door.set("learn_rate", 1.0)
    with pytest.raises(VitpipeError, match="'rank'"):
        door.inc("restarts_total", rnk="0")


def test_names_follow_the_conventions() -> None:
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in metrics.KNOWN)
    for known in metrics.KNOWN.values():
        assert known.name.endswith("_total") == (known.kind == "counter"), known
        assert known.help.endswith(".")
        assert not re.search(r"_(ms|minutes|mb|gb|percent)\b", known.name)
    assert all(first != second for first, second in pairwise(sorted(metrics.KNOWN)))


def test_what_storage_moves_is_counted(tmp_path):
    """In a process of its own: what other tests' threads still read would be counted too."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        seen = process.submit(move_bytes, f"file://{tmp_path}").result()
    assert seen["vitpipe_storage_written_bytes_total", "node", ""] == 5
    assert seen["vitpipe_storage_read_bytes_total", "node", ""] == 2
    assert seen["vitpipe_storage_retries_total", "node", ""] == 1


def move_bytes(uri: str) -> dict[tuple[str, str, str], float]:
    with Exporter(Address(port=0)) as exporter:
        metrics.count_storage("run", "node")
        metrics.count_storage("run", "node")  # a second task of the process: nothing counts twice
        store = open_store(uri)
        store.write("x", b"12345")
        store.read("x", 0, 2)
        traffic.count("retries")
        return scrape(exporter)
