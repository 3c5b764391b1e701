"""A kind of source and a benchmark, added as CONTRIBUTING says: they work from `validate` to the report's table."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from official_files import write_mnist
from shadow_tree import ROOT, shadow_tree

from vitpipe.stages.ingest.benchmarks.registry import load_registry
from vitpipe.stages.ingest.sources.source_settings import SourceSettings

ADDED = ROOT / "tests/added"
KINDS, BENCHMARKS = "stages/ingest/sources/kinds.py", "stages/ingest/benchmarks/official"
SPEC = """\
version: 1
name: added
store: file://./runs
nodes:
  squares:
    stage: ingest
    config: {source: {kind: shades, file: ./shades.txt}, splits: {train: 0.6, test: 0.4}, images_per_shard: 16}
  pages: {stage: ingest, config: {source: {kind: benchmark, name: greys, root: ./greys}}}
  pixels:
    stage: evaluate
    foreach: {data: [squares, pages]}
    needs: {data: "${each.data}"}
    config: {method: fewshot, features: raw_pixels, shots: [1], image_px: 8, eval_resize: squash}
  table: {stage: report, needs: {scores: pixels}}
"""


def with_shades() -> dict[str, str]:
    """The two files that a new kind of source takes: its own, and two lines where the kinds are named."""
    kinds = (ROOT / KINDS).read_text().splitlines()
    lines = [line for line in kinds if "ParquetSource" in line]
    assert len(lines) == 2
    for line in lines:
        kinds.insert(kinds.index(line), line.replace("parquet", "shades").replace("Parquet", "Shades"))
    return {
        str(Path(KINDS).with_name("shades.py")): (ADDED / "shades.py").read_text(),
        KINDS: "\n".join(kinds) + "\n",
    }


def commands(tree: Path, cwd: Path, *each: str) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of vitpipe's commands, one after another."""
    paths = os.pathsep.join(map(str, (tree, ROOT / "tests")))
    environment = {**os.environ, "PYTHONPATH": paths, "XDG_STATE_HOME": str(cwd / "state"), "OMP_NUM_THREADS": "1"}
    run = [sys.executable, str(ADDED / "commands.py"), *each]
    done = subprocess.run(run, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_a_new_kind_and_a_new_benchmark_reach_the_report(tmp_path: Path) -> None:
    rows = [f"{'ab'[number % 2]}{number:02d} {'dark' if number % 2 else 'light'} {number * 5}" for number in range(40)]
    (tmp_path / "shades.txt").write_text("\n".join(rows) + "\n")
    (tmp_path / "greys").mkdir()
    write_mnist(tmp_path / "greys", 40, 20)
    (tmp_path / "added.yaml").write_text(SPEC)
    of_a_source, of_a_benchmark = with_shades(), {f"{BENCHMARKS}/greys.json": (ADDED / "greys.json").read_text()}
    assert (len(of_a_source), len(of_a_benchmark)) == (2, 1)
    tree = shadow_tree(tmp_path / "tree", of_a_source | of_a_benchmark)
    valid, schema, plan, run, again, drifted, refused = commands(
        tree, tmp_path, "validate added.yaml", "schema", "plan added.yaml --json", "run added.yaml",
        "plan added.yaml --json", ">> shades.txt 'b99 dark 7'", "plan added.yaml --json", "run added.yaml",
    )  # fmt: skip
    assert (valid[0], valid[2]) == (0, "") and "5 nodes" in valid[1]
    assert {"ShadesSource", "FolderSource"} <= json.loads(schema[1])["$defs"].keys()
    planned = {node["node"]: node for node in json.loads(plan[1])["nodes"]}
    assert planned["squares"]["estimate"]["images"] == 40 and planned["pages"]["estimate"]["images"] == 60
    assert run[0] == 0, run[2]
    manifest = json.loads((tmp_path / "runs/added/squares/a1/manifest.json").read_text())
    assert manifest["source"]["kind"] == "shades" and sum(shard["count"] for shard in manifest["shards"]) == 40
    table = (tmp_path / "runs/added/table/a1/README.md").read_text()
    assert all(any(line.startswith(f"| {name} ") for line in table.splitlines()) for name in ("squares", "greys"))
    then, now = ({node["node"]: node for node in json.loads(one[1])["nodes"]} for one in (again, drifted))
    assert then["squares"]["action"] == "reuse" and "is as it was ingested, 1 files" in then["squares"]["source"]
    assert now["squares"]["action"] == "drifted" and "1 changed of 1 files" in now["squares"]["source"]
    assert refused[0] == 3


def without(part: str) -> str:
    """The added source, one of its parts forgotten."""
    module = ast.parse((ADDED / "shades.py").read_text())
    kind = next(node for node in module.body if isinstance(node, ast.ClassDef))
    kind.body = [node for node in kind.body if not (isinstance(node, ast.FunctionDef) and node.name == part)]
    return ast.unparse(module)


def test_a_forgotten_part_is_an_error_of_mypy_and_of_whoever_validates(tmp_path: Path) -> None:
    parts = sorted(SourceSettings.__abstractmethods__)
    assert len(parts) == 7
    names = ["nothing", *parts]
    for name in names:
        (tmp_path / f"without_{name}.py").write_text(without(name))
    base = next(line for line in (ROOT / KINDS).read_text().splitlines() if line.endswith("import SourceSettings"))
    imports = [f"from without_{name} import ShadesSource as S{number}" for number, name in enumerate(names)]
    items = ["kinds: list[type[SourceSettings]] = [", *(f"    S{number}," for number in range(len(names))), "]"]
    (tmp_path / "kinds_of_all.py").write_text("\n".join([base, *imports, *items]) + "\n")
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    mypy = [sys.executable, "-m", "mypy", *options, str(tmp_path / "kinds_of_all.py")]
    environment = {**os.environ, "MYPYPATH": os.pathsep.join((str(ROOT), str(tmp_path)))}
    done = subprocess.run(mypy, cwd=ROOT, env=environment, capture_output=True, text=True)
    told = [line for line in done.stdout.splitlines() if "[type-abstract]" in line]
    whole = items.index("    S0,") + len(imports) + 2  # its line: nothing is said of a kind that lacks nothing
    assert [int(line.split(":")[1]) - whole for line in told] == list(range(1, len(names))), done.stdout


@pytest.mark.parametrize("part", sorted(SourceSettings.__abstractmethods__))
def test_a_kind_that_lacks_a_part_is_never_made(part: str) -> None:
    found: dict[str, Any] = {"__name__": "added"}
    exec(without(part), found)
    found["ShadesSource"].model_rebuild(_types_namespace=found)
    with pytest.raises(TypeError, match=part):
        found["ShadesSource"].model_validate({"kind": "shades", "file": "x"})


def test_an_entry_that_lacks_a_field_is_refused_by_its_name(tmp_path: Path) -> None:
    (whole,) = json.loads((ADDED / "greys.json").read_text())
    for field in ("title", "group", "reader", "images", "num_classes", "image_bytes", "licence", "home", "obtain"):
        (tmp_path / "one.json").write_text(json.dumps([{name: whole[name] for name in whole if name != field}]))
        with pytest.raises(TypeError, match=field):
            load_registry(tmp_path)
    (tmp_path / "one.json").write_text(json.dumps([whole]))
    assert list(load_registry(tmp_path)) == ["greys"]
