"""What the records vouch for may still not be what the world reads: `artifacts verify --readback` says so."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from photos import ingest, photo_folder

from vitpipe.infra.storage.opening import open_store
from vitpipe.pipeline.cli import main as cli
from vitpipe.pipeline.store import retrieval
from vitpipe.pipeline.store import verify_readback as readback
from vitpipe.stages.ingest import run as run_module
from vitpipe.stages.ingest.write import writer as writer_module


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    root = photo_folder(tmp_path / "user", per_class=4)
    return {"source": {"kind": "folder", "root": str(root)}, "images_per_shard": 4, "splits": {"train": 1.0}}


@pytest.fixture
def run(tmp_path: Path) -> str:
    (tmp_path / "store/test").mkdir(parents=True)
    (tmp_path / "store/test/spec.yaml").write_text("")
    return f"file://{tmp_path}/store/test"


def test_sound_shards_are_read_back_without_torch(config: dict[str, Any], run: str, tmp_path: Path) -> None:
    ingest(tmp_path, config)

    code = "import sys; from vitpipe.pipeline.cli import main as cli; "
    code += f"code = cli.invoke(['artifacts', 'verify', {run!r}, *sys.argv[1:]]); "
    code += "sys.exit(code or len({'torch', 'ray', 'webdataset'} & set(sys.modules)))"

    def verify(*args: str) -> str:
        return subprocess.run([sys.executable, "-c", code, *args], check=True, capture_output=True, text=True).stdout

    out = verify("shards", "--readback")
    assert "all as recorded" in out and "3 shards, read by webdataset as their indexes say" in out
    found = json.loads(verify("--readback", "--json"))
    assert [one["path"] for one in found["read_back"]] == [f"train-{number:06d}.tar" for number in range(3)]
    assert {one["problem"] for one in found["read_back"]} == {None} and len(found["files"]) == 10


def test_a_false_label_that_the_record_vouches_for_is_8(
    config: dict[str, Any],
    run: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As a version that read nothing back could have left it."""
    numbers = iter(range(12))

    def planted(labels: tuple[int, ...], multi_label: bool) -> tuple[tuple[str, bytes], ...]:
        return (("cls", b"7" if next(numbers) == 5 else str(labels[0]).encode()),)

    monkeypatch.setattr(run_module, "read_back_paths", lambda *asked: set())
    monkeypatch.setattr(writer_module, "label_members", planted)
    ingest(tmp_path, config)

    assert cli.invoke(["artifacts", "verify", run]) == 0 and "all as recorded" in capsys.readouterr().out
    assert cli.invoke(["artifacts", "verify", run, "--readback"]) == 8
    err = capsys.readouterr().err
    assert "1 of 3 files" in err and "shards/train-000001.tar (shards/a1/train-000001.tar)" in err
    assert "is to webdataset not what its index says: the label of 'train-000000005' is [7], the index says [" in err


@pytest.mark.s3
def test_objects_are_read_a_piece_at_a_time(
    config: dict[str, Any], run: str, tmp_path: Path, s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(tmp_path, config)
    bucket = open_store(f"{s3_uri}/test")
    for path in (tmp_path / "store/test").rglob("*.*"):
        bucket.write(str(path.relative_to(tmp_path / "store/test")), path.read_bytes())
    monkeypatch.setattr(retrieval, "READ_BYTES", 3000)

    found = readback.read_shards_back(bucket.uri, "shards", lambda *told: None)
    assert len(found) == 3 and {one.problem for one in found} == {None}
