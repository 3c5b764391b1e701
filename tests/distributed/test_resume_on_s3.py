"""A training whose checkpoints lie on a real S3 server: killed, it goes on from there to the last bit."""

from pathlib import Path

import pytest
import synthetic
from states import curve
from tiny_pretraining import KillsAt, context, pretrain, recipe

from vitpipe.stages.artifacts import Checkpoint


@pytest.mark.s3
def test_killed_and_resumed_from_s3(s3_uri: str, tmp_path: Path) -> None:
    shards = synthetic.shards(tmp_path, classes=("red", "yellow", "green", "blue"))
    calm = context(tmp_path, node="calm", workers=2)
    wanted = pretrain(recipe(), calm, shards)
    with pytest.raises(RuntimeError, match="-9"):
        pretrain(recipe(), context(tmp_path, workers=2, fence=KillsAt(8), store_uri=s3_uri), shards)
    ctx = context(tmp_path, "a2", ("a1",), workers=2, store_uri=s3_uri)
    found = pretrain(recipe(), ctx, shards)
    (resumed,) = ctx.events.of("resumed")  # type: ignore[attr-defined]
    assert resumed.startswith(("from step 3 of", "from step 6 of")) and ctx.out.node.uri.startswith("s3://")
    assert curve(ctx, found) == curve(calm, wanted)
    assert state(found) == state(wanted) != {}


def state(made: Checkpoint) -> dict[str, str]:
    """SHA-256 of the files that hold weights and moments."""
    return {file.path: file.sha256 for file in made.files if f"{made.folder}/state/" in file.path}
