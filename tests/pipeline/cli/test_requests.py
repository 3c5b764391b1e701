"""What each verb asks of the store: the same for a few nodes as for many, on a folder and on S3. Numbers: docs/runs.md.

Counted where requests leave the process. A second run stands beside, so that `ls` and `compare` have some.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Vitpipe
from counted import asked

from vitpipe.infra.storage.opening import open_store

SIZES = (6, 18)
ASKED = {
    "plan": 2, "run again": 3, "status": 4, "artifacts ls": 3, "events": 4, "events --tail": 4,
    "ls": 1 + 2 * 3, "compare": 2 * 4, "diff": 2 * 4,
}  # fmt: skip
"""Requests of each verb, beside those for the lease and a wish to stop, which threads of a run read too."""


def yaml(store: str, name: str, nodes: int, value: int = 1) -> str:
    lines = [f"version: 1\nname: {name}\nstore: {store}\nnodes:"]
    lines.append(f"  root: {{stage: make, config: {{value: {value}}}}}")
    for number in range(nodes - 2):
        lines.append(f"  n{number:03}: {{stage: make, needs: {{sources: [root]}}, config: {{value: {number}}}}}")
    return "\n".join([*lines, "  sum: {stage: add, needs: {shards: [root]}}"]) + "\n"


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path}/runs" if request.param == "file" else request.getfixturevalue("s3_uri")


def count(vitpipe: Vitpipe, *words: object) -> int:
    with asked(Path.cwd()) as counts:
        code, _, err = vitpipe(*words)
    assert code == 0, err
    return sum(number for what, number in counts.items() if not what.endswith(("stop.json", "lease.json")))


@pytest.fixture
def made(vitpipe: Vitpipe, tmp_path: Path, store: str) -> Callable[[int], tuple[str, Path]]:
    def make(nodes: int) -> tuple[str, Path]:
        for value, name in enumerate(("one", "two")):
            path = tmp_path / f"{name}-{nodes}.yaml"
            path.write_text(yaml(f"{store}/{nodes}", name, nodes, value + 1))
            assert vitpipe("run", path, "--json")[0] == 0
        return f"{store}/{nodes}", tmp_path / f"one-{nodes}.yaml"

    return make


def test_what_verbs_ask_does_not_grow_with_the_nodes(
    vitpipe: Vitpipe, made: Callable[[int], tuple[str, Path]], tmp_path: Path
) -> None:
    for nodes in SIZES:
        place, spec = made(nodes)
        run, both = f"{place}/one", (f"{place}/one", f"{place}/two", "--json")
        found = {
            "plan": count(vitpipe, "plan", spec, "--json"),
            "run again": count(vitpipe, "run", spec, "--json"),
            "status": count(vitpipe, "status", run),
            "artifacts ls": count(vitpipe, "artifacts", "ls", run),
            "events": count(vitpipe, "events", run),
            "events --tail": count(vitpipe, "events", run, "--tail", 5),
            "ls": count(vitpipe, "ls", place),
            "compare": count(vitpipe, "compare", *both),
            "diff": count(vitpipe, "diff", *both),
        }
        assert found == ASKED, nodes
    new = tmp_path / "new.yaml"
    new.write_text(yaml(f"{place}-new", "new", 101))
    assert count(vitpipe, "plan", new, "--json") == 1


def test_a_run_without_copies_costs_a_request_a_record(
    vitpipe: Vitpipe, made: Callable[[int], tuple[str, Path]], tmp_path: Path
) -> None:
    """The control: what the copies spare is seen by this count."""
    place, _ = made(12)
    open_store(f"{place}/one").delete("copies.json")
    assert count(vitpipe, "status", f"{place}/one") == ASKED["status"] + 12
