"""One list of names, one exporter, and the same numbers wherever they arise."""

import pickle
import re
import urllib.request
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from vitpipe.infra import metrics
from vitpipe.infra.errors import VitpipeError
from vitpipe.infra.exporter import Exporter
from vitpipe.infra.storage import traffic
from vitpipe.infra.storage.opening import open_store


@pytest.fixture
def exporter():
    with Exporter(port=0) as exporter:
        yield exporter


def scrape(exporter: Exporter) -> dict[tuple[str, str, str], float]:
    with urllib.request.urlopen(exporter.url, timeout=5) as answer:
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
    metrics.publish_progress("demo", "backbone", {**progress, "metrics": {"data_wait_seconds_total": 1.5}})
    served = scrape(exporter)
    assert served["vitpipe_step", "backbone", ""] == 3
    assert served["vitpipe_target_steps", "backbone", ""] == 9
    assert served["vitpipe_ranks", "backbone", ""] == 2
    assert served["vitpipe_data_wait_seconds_total", "backbone", ""] == 1.5
    assert ("vitpipe_loss", "backbone", "") not in served


def test_the_age_of_the_last_commit_grows_until_it_is_scraped(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the rank's clock shows: it tells by it how old the commit was, and what passes since we measure."""
    now = 50.0
    monkeypatch.setattr("vitpipe.infra.exporter.time", SimpleNamespace(monotonic=lambda: now))
    told = {"step": 1, "time": 1005.0, "metrics": {"last_commit_timestamp_seconds": 1000.0}}
    metrics.publish_progress("demo", "backbone", told)
    now += 60
    assert scrape(exporter)["vitpipe_last_commit_age_seconds", "backbone", ""] == pytest.approx(65.0)
    metrics.publish_progress("demo", "backbone", {**told, "time": 1066.0})
    assert scrape(exporter)["vitpipe_last_commit_age_seconds", "backbone", ""] == pytest.approx(66.0)


def test_a_second_exporter_takes_another_port_and_gives_the_numbers_back(exporter: Exporter) -> None:
    port = int(exporter.url.split(":")[2].split("/")[0])
    with Exporter(port=port) as second:
        assert second.url != exporter.url
        metrics.publish("demo", "inner", {"step": 1})
    metrics.publish("demo", "outer", {"step": 2})
    served = scrape(exporter)
    assert ("vitpipe_step", "outer", "") in served and ("vitpipe_step", "inner", "") not in served


def test_without_a_sink_numbers_are_dropped_but_names_are_checked() -> None:
    door = metrics.NodeMetrics("demo", "backbone")
    door.set("loss", 1.0)
    with pytest.raises(VitpipeError, match="'learning_rate'"):
        door.set("learn_rate", 1.0)
    with pytest.raises(VitpipeError, match="'rank'"):
        door.inc("restarts_total", rnk="0")
    with pytest.raises(VitpipeError, match="'step'"):
        metrics.publish("demo", "backbone", {"stepp": 1})


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
    with Exporter(port=0) as exporter:
        metrics.count_storage("run", "node")
        metrics.count_storage("run", "node")  # a second task of the process: nothing counts twice
        store = open_store(uri)
        store.write("x", b"12345")
        store.read("x", 0, 2)
        traffic.count("retries")
        return scrape(exporter)
