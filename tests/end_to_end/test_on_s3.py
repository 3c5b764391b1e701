"""The quickstart's shape with its store on a real S3 server: run, fetch, verify, damage, wrong credentials."""

from pathlib import Path

import pytest
from driving import vitpipe, write_spec
from s3_server import S3Server


@pytest.mark.s3
@pytest.mark.timeout(900)
def test_run_fetch_verify_and_damage(s3_server: S3Server, s3_uri: str, tmp_path: Path) -> None:
    env = s3_server.environment
    spec = write_spec(tmp_path, "remote", store=s3_uri, transfer=True)
    run = f"{s3_uri}/remote"
    vitpipe("run", spec, cwd=tmp_path, env=env)
    vitpipe("run", spec, cwd=tmp_path, env={**env, "RAY_ADDRESS": "127.0.0.1:1"})  # nothing left to do, so no Ray

    vitpipe("artifacts", "get", run, "table", tmp_path / "table", cwd=tmp_path, env=env)
    assert "<svg" in (tmp_path / "table" / "index.html").read_text()
    vitpipe("artifacts", "verify", run, cwd=tmp_path, env=env)

    client, (bucket, prefix) = s3_server.client(), run.removeprefix("s3://").split("/", 1)
    tar = f"{prefix}/digits/a1/train-000000.tar"
    whole = client.get_object(Bucket=bucket, Key=tar)["Body"].read()
    client.put_object(Bucket=bucket, Key=tar, Body=whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "train-000000.tar" in vitpipe("artifacts", "verify", run, cwd=tmp_path, env=env, expect=8).stderr
    client.delete_object(Bucket=bucket, Key=tar)
    assert "train-000000.tar" in vitpipe("artifacts", "verify", run, "digits", cwd=tmp_path, env=env, expect=8).stderr
    client.put_object(Bucket=bucket, Key=tar, Body=whole)
    vitpipe("artifacts", "verify", run, cwd=tmp_path, env=env)


@pytest.mark.s3
def test_wrong_secret_and_missing_bucket(s3_server: S3Server, s3_uri: str, tmp_path: Path) -> None:
    wrong = {**s3_server.environment, "AWS_SECRET_ACCESS_KEY": "canary-wrong-secret"}
    spec = write_spec(tmp_path, "refused", store=s3_uri)
    done = vitpipe("run", spec, cwd=tmp_path, env=wrong, expect=7)
    assert "canary-wrong-secret" not in done.stdout + done.stderr and "Traceback" not in done.stderr
    spec = write_spec(tmp_path, "refused", store="s3://no-such-bucket-here/runs")
    done = vitpipe("run", spec, cwd=tmp_path, env=s3_server.environment, expect=7)
    assert "no-such-bucket-here" in done.stderr
