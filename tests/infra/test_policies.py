"""The shipped S3 policies on a real server: what a run, `gc` and `doctor` need is allowed, and nothing else."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import synthetic
from s3_server import BUCKET, S3Server
from states import curve
from tiny_pretraining import context, pretrain, recipe

from vitpipe.infra import metrics
from vitpipe.infra.errors import StorageError
from vitpipe.infra.storage.opening import open_store
from vitpipe.pipeline.cli import doctor
from vitpipe.pipeline.drive.gc import gc

pytestmark = pytest.mark.s3

DEPLOY = Path(metrics.__file__).resolve().parent / "deploy"
STEP = re.compile(r"step-\d+")
DATA = "vitpipe-policy-data"
Become = Callable[..., None]


@pytest.fixture
def become(s3_server: S3Server, s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> Become:
    """Make this process a new user who has one of the shipped policies, perhaps without one of its statements."""
    prefix = s3_uri.rpartition("/")[2]

    def become(policy: str, without: str = "") -> None:
        text = (DEPLOY / policy).read_text().replace("RUNS_BUCKET/RUNS_PREFIX", f"{BUCKET}/{prefix}")
        shipped = json.loads(text.replace("RUNS_BUCKET", BUCKET).replace("DATA_BUCKET", DATA))
        shipped["Statement"] = [one for one in shipped["Statement"] if one["Sid"] != without]
        user = s3_server.user(f"user-{prefix[:8]}-{len(without)}-{len(policy)}", json.dumps(shipped))
        change(monkeypatch, user)

    return become


def change(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def steps(uri: str, node: str) -> set[str]:
    """The steps of which anything is left, a mark too."""
    found = (STEP.search(entry.path) for entry in open_store(f"{uri}/test/{node}").list("a1/"))
    return {match[0] for match in found if match}


@pytest.mark.parametrize("node", ["backbone", "backbone/a-sibling"])
def test_a_run_with_keep_deletes_its_old_steps(node: str, become: Become, s3_uri: str, tmp_path: Path) -> None:
    """Four steps are committed, and one is kept."""
    shards = synthetic.shards(tmp_path)
    become("iam-policy.json")
    ctx = context(tmp_path, node=node, store_uri=s3_uri, keep=1)
    pretrain(recipe(), ctx, shards)
    assert steps(s3_uri, node) == {"step-10"}
    assert not ctx.events.of("deletion_failed")  # type: ignore[attr-defined]


def test_a_policy_without_deletions_costs_room_alone(become: Become, s3_uri: str, tmp_path: Path) -> None:
    """The negative control: one event, every step stays, and the losses are those of a run that may delete."""
    shards = synthetic.shards(tmp_path)
    free = context(tmp_path, node="free", keep=1)
    wanted = pretrain(recipe(), free, shards)
    become("iam-policy.json", without="DropOldStepsOnly")
    ctx = context(tmp_path, node="backbone", store_uri=s3_uri, keep=1)
    made = pretrain(recipe(), ctx, shards)
    (event,) = ctx.events.of("deletion_failed")  # type: ignore[attr-defined]
    assert "S3 refused it: 403" in event and "`keep`" in event
    assert {"step-3", "step-6", "step-9", "step-10"} <= steps(s3_uri, "backbone")
    assert curve(ctx, made) == curve(free, wanted)


def test_a_run_may_do_nothing_else(become: Become, s3_server: S3Server, s3_uri: str) -> None:
    data = s3_server.client()
    data.create_bucket(Bucket=DATA)
    data.put_object(Bucket=DATA, Key="cat/1.jpg", Body=b"x")
    become("iam-policy.json")
    run, source = open_store(s3_uri).child("run"), open_store(f"s3://{DATA}")
    for path in ("lease.json", "node/record.json", "node/a1/train-000000.tar", "node/step-3/x", "events/1-1-x.json"):
        run.write(path, b"x")
        with pytest.raises(StorageError, match="403"):
            run.delete(path)
    with pytest.raises(StorageError, match="403"):
        open_store(f"s3://{BUCKET}/another").write("run/spec.yaml", b"x")
    assert source.read("cat/1.jpg") == b"x" and len(list(source.list())) == 1
    for forbidden in (lambda: source.write("cat/2.jpg", b"x"), lambda: source.delete("cat/1.jpg")):
        with pytest.raises(StorageError, match="403"):
            forbidden()


def test_gc_and_its_policy(become: Become, s3_server: S3Server, s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_store(s3_uri).child("run")
    for path in ("spec.yaml", "node/a1/attempt.json", "node/a1/logs/scrap"):
        run.write(path, b"{}")
    run.write("node/a1/attempt.json", b'{"fingerprint": "f", "recipe": {"stage": "report"}, "inputs": {}}')
    become("iam-policy.json")
    with pytest.raises(StorageError, match="403"):
        gc(run.uri, unfinished=True)
    become("iam-policy-gc.json")
    assert "node/a1/logs/scrap" in gc(run.uri, unfinished=True).paths
    with pytest.raises(StorageError, match="403"):
        open_store(f"s3://{BUCKET}/another").write("run/spec.yaml", b"x")


def test_doctor_passes_under_it(become: Become, s3_uri: str) -> None:
    become("iam-policy.json")
    found = {check.name: check for check in doctor.checks(s3_uri) if check.name in (f"store {s3_uri}", "clock")}
    assert len(found) == 2 and all(check.ok for check in found.values()), found


def test_doctor_says_so_where_nothing_may_be_deleted(become: Become, s3_uri: str) -> None:
    become("iam-policy.json", without="DropOldStepsOnly")
    (check,) = (check for check in doctor.checks(s3_uri) if check.name == f"store {s3_uri}")
    assert not check.ok and "403" in check.found
