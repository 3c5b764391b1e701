"""Artifacts are fetched whole and right, or not at all; what was damaged behind a record's back is named."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.store import Store
from vitpipe.pipeline.store.retrieval import fault, get, list_files, verify
from vitpipe.stages.artifacts import File, ShardSet
from vitpipe.stages.record import Record
from vitpipe.stages.seal import sealed

CONTENT = {"train-000000.tar": os.urandom(300_000), "manifest.json": b"{}", "sub/empty.txt": b""}


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    base = f"file://{tmp_path}/runs" if request.param == "file" else request.getfixturevalue("s3_uri")
    store = open_store(f"{base}/quickstart")
    store.write("spec.yaml", b"")
    for node in ("glyphs", "transfer/b-16", "transfer/l-16"):
        commit(store.child(node), node, CONTENT)
    store.write("table/a1/attempt.json", b"{}")
    return store


def commit(store: Store, node: str, content: dict[str, bytes], paths: dict[str, str] | None = None) -> None:
    files = []
    for name, data in content.items():
        digest = store.write(f"a1/{name}", data)
        path = (paths or {}).get(name, name)
        files.append(File(path=path, at=f"a1/{name}", bytes=digest.bytes, sha256=digest.sha256))
    output = ShardSet(manifest_sha256="0", num_classes=2, splits={"train": 1}).facts()
    record = Record(
        schema=1, node=node, stage="ingest", fingerprint="f", recipe={}, config={}, inputs={}, output=output,
        files=tuple(files), code="c", versions={}, started="now", seconds=1, attempt="a1",
    )  # fmt: skip
    store.create("record.json", record.model_dump_json(by_alias=True).encode())


def test_lists_what_is_committed(run):
    everything = list_files(run.uri)
    assert {listed.node for listed in everything} == {"glyphs", "transfer/b-16", "transfer/l-16"}
    one = {listed.path: listed for listed in list_files(run.uri, "glyphs")}
    assert set(one) == set(CONTENT)
    tar = one["train-000000.tar"]
    assert (tar.kind, tar.bytes) == ("ShardSet", 300_000)
    assert tar.uri == f"{run.uri}/glyphs/a1/train-000000.tar" and open_store(run.uri).size("glyphs/a1/train-000000.tar")
    assert tar.sha256 == hashlib.sha256(CONTENT["train-000000.tar"]).hexdigest()
    assert {listed.node for listed in list_files(run.uri, "transfer")} == {"transfer/b-16", "transfer/l-16"}


def test_gets_every_byte_and_says_how_far_it_is(run, tmp_path):
    told = []
    got = get(run.uri, "transfer/b-16", tmp_path / "out", progress=lambda *facts: told.append(facts))
    assert {str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in got} == CONTENT
    assert told[-1][:2] == (300_002, 300_002)
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert {path for _, _, path in told if path} == set(CONTENT)


def test_gets_only_what_matches(run, tmp_path):
    told = []
    only = ["*.tar", "sub/*"]
    got = get(run.uri, "glyphs", tmp_path, progress=lambda *facts: told.append(facts), only=only)
    assert [str(path.relative_to(tmp_path)) for path in got] == ["train-000000.tar", "sub/empty.txt"]
    assert told[-1][1] == 300_000 and not (tmp_path / "manifest.json").exists()
    with pytest.raises(UsageError, match=r"none of its 3 files matches '\*\.png'; some are train-000000\.tar, "):
        get(run.uri, "glyphs", tmp_path, only=["*.tar", "*.png"])


def test_goes_on_where_it_ended(run, tmp_path):
    get(run.uri, "glyphs", tmp_path)
    tar = tmp_path / "train-000000.tar"
    (tmp_path / "train-000000.tar.part").write_bytes(CONTENT["train-000000.tar"][:200_000])
    tar.unlink()
    (tmp_path / "manifest.json").write_bytes(b"{!")
    get(run.uri, "glyphs", tmp_path)
    assert tar.read_bytes() == CONTENT["train-000000.tar"]
    assert (tmp_path / "manifest.json").read_bytes() == b"{}"
    assert not list(tmp_path.rglob("*.part"))


def test_an_intact_run_is_verified(run):
    findings = verify(run.uri)
    assert len(findings) == 9 and fault(run.uri, findings) is None


def damage(run: Store, how: str) -> None:
    at = "glyphs/a1/train-000000.tar"
    data = run.read(at)
    if how == "missing":
        run.delete(at)
    else:
        run.write(at, data[:-1] if how == "short" else data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize(
    ("how", "says"), [("missing", "is missing"), ("short", "299999 bytes"), ("flipped", "SHA-256")]
)
def test_damage_is_found_and_named(run, tmp_path, how, says):
    damage(run, how)
    wrong = fault(run.uri, verify(run.uri))
    assert isinstance(wrong, IntegrityError) and wrong.code == 8
    assert "glyphs/train-000000.tar" in str(wrong) and says in str(wrong) and "transfer" not in str(wrong)
    assert fault(run.uri, verify(run.uri, "transfer")) is None
    with pytest.raises(IntegrityError, match=r"train-000000\.tar"):
        get(run.uri, "glyphs", tmp_path / "out")
    assert not (tmp_path / "out" / "train-000000.tar").exists()


@pytest.mark.parametrize("how", ["cut", "flipped", "lost", "kept"])
def test_verify_tells_damaged_and_lost_records_and_goes_on(run, how):
    fields = json.loads(run.read("glyphs/record.json"))
    fields = {key: value for key, value in fields.items() if key != "sha256"} | {"schema": 2}
    data, ref = sealed(fields), {"uri": f"{run.uri}/glyphs", "fingerprint": "f"}
    taker = json.loads(run.read("transfer/b-16/record.json"))
    taker["inputs"] = {"data": [{**ref, "record_sha256": hashlib.sha256(data).hexdigest()}]}
    run.write("transfer/b-16/record.json", json.dumps(taker).encode())
    run.write("glyphs/record.json", data)
    assert fault(run.uri, verify(run.uri)) is None
    if how == "lost":
        run.delete("glyphs/record.json")
    elif how == "kept":
        run.write("glyphs/record.1.json", data.replace(b'"a1/manifest.json"', b'"a1/manifest.jsom"'))
    else:
        run.write(
            "glyphs/record.json", data[:-9] if how == "cut" else data.replace(b'"started": "now"', b'"started": "not"')
        )
    for node in (None, "glyphs"):
        wrong = fault(run.uri, verify(run.uri, node))
        name = "record.1.json" if how == "kept" else "record.json"
        assert wrong is not None and f"glyphs/{name}" in str(wrong) and "--replace" not in str(wrong)
        if how == "lost":
            assert str(wrong).count("glyphs/record.json") == 1 and " files " not in str(wrong)
    assert fault(run.uri, verify(run.uri, "transfer")) is None


def test_a_lost_record_is_told_once_by_whoever_lists_or_fetches(run, tmp_path):
    attempt = {"fingerprint": "f", "recipe": {}, "inputs": {}}
    run.write("glyphs/a1/attempt.json", json.dumps(attempt).encode())
    run.write("table/a1/attempt.json", json.dumps(attempt).encode())
    run.write("glyphs/a1/committed/done", b"")
    assert len(list_files(run.uri)) == 9
    run.delete("glyphs/record.json")
    for ask in (lambda: list_files(run.uri), lambda: list_files(run.uri, "glyphs"),
                lambda: get(run.uri, "glyphs", tmp_path)):  # fmt: skip
        with pytest.raises(IntegrityError, match=r"glyphs/record\.json: it is damaged: it is lost: a1 committed one"):
            ask()
    assert len(list_files(run.uri, "transfer")) == 6
    taker = json.loads(run.read("transfer/b-16/record.json"))
    taker["inputs"] = {"data": [{"uri": f"{run.uri}/glyphs", "fingerprint": "f", "record_sha256": "0"}]}
    run.write("transfer/b-16/record.json", json.dumps(taker).encode())
    damage(run, "missing")
    run.delete("transfer/b-16/a1/train-000000.tar")
    wrong = fault(run.uri, verify(run.uri))
    assert wrong and wrong.found.startswith(
        "it is damaged: glyphs/record.json is lost: a1 committed one; 1 of 6 files are not what"
    )


@pytest.mark.parametrize("ask", [list_files, lambda run, node: get(run, node, Path("/x")), verify])
def test_unknown_names_are_told_with_the_nearest(run, ask):
    with pytest.raises(UsageError, match="Did you mean 'quickstart'"):
        ask(run.uri.replace("quickstart", "quickstrat"), "glyphs")
    with pytest.raises(UsageError, match="Did you mean 'glyphs'"):
        ask(run.uri, "glyph")
    with pytest.raises(UsageError, match="no node of that name is committed"):
        ask(run.uri, "table")
    with pytest.raises(UsageError):
        ask(run.uri, "../quickstart/glyphs")


def test_a_folder_that_may_not_be_read_hides_no_name(tmp_path):
    open_store(f"file://{tmp_path}/quickstart").write("spec.yaml", b"")
    mark = tmp_path / "quickstart-of-another/spec.yaml"
    mark.parent.mkdir()
    mark.symlink_to(mark)  # every question about it ends in an error
    with pytest.raises(UsageError, match="Did you mean 'quickstart'"):
        list_files(f"file://{tmp_path}/quickstrat", "glyphs")


def test_a_node_with_siblings_has_to_be_named_whole(run, tmp_path):
    with pytest.raises(UsageError, match="transfer/b-16, transfer/l-16"):
        get(run.uri, "transfer", tmp_path)


@pytest.mark.parametrize("path", ["../escaped", "/tmp/escaped", "a/../../escaped"])
def test_a_record_cannot_name_a_file_outside(run, tmp_path, path):
    commit(run.child("evil"), "evil", {"x": b"1"}, {"x": path})
    with pytest.raises(IntegrityError, match="Do not trust"):
        get(run.uri, "evil", tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("escaped"))
