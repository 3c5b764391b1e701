"""What `test_a_new_optimizer.py` runs in a copy of the packages that has one file more: prints what it found as JSON.

python new_optimizer.py FOLDER
"""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import synthetic
from states import committed, differing
from tiny_pretraining import StopsAt, context, pretrain, recipe

from vitpipe.infra.errors import Stopped
from vitpipe.pipeline.cli import main as cli

SIGNUM = {"kind": "signum", "peak_lr": 1e-3, "state_dtype": "bf16", "damping": 0.5}
SPEC = """
version: 1
name: run
store: file://./runs
nodes:
  data: {stage: ingest, config: {source: {kind: glyphs, classes: 2, images_per_class: 40, image_px: 16}}}
  net:
    stage: pretrain
    needs: {shards: data}
    config:
      {model: {variant: {layers: 2, width: 32, mlp: 64, heads: 2, patch_px: 8}, image_px: 16}, batch_images: 8,
       total: 10 steps, optimizer: %s}
"""


def verb(*words: str) -> tuple[int, Any]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = cli.invoke([*words, "--json"])
    return code, json.loads(out.getvalue())


def planned(optimizer: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Exit codes of validate and plan together, and the plan's numbers of the pretraining, as a B/16.

    What a rule that is not torch's makes aside, 16 million numbers at a time, is more than the moments of a tiny one.
    """
    Path("spec.yaml").write_text(SPEC % json.dumps(optimizer))
    valid, _ = verb("validate", "spec.yaml")
    code, told = verb("plan", "spec.yaml", "nodes.net.config.model.variant=B/16")
    return valid + code, next(one["estimate"] for one in told["nodes"] if one["node"] == "net")


def trained(folder: Path) -> dict[str, Any]:
    """Undisturbed, and stopped and resumed: what differs, and what the checkpoint holds."""
    shards, config = synthetic.shards(folder), recipe(optimizer=SIGNUM, total="4 steps")
    whole = context(folder, node="whole")
    made = pretrain(config, whole, shards)
    wanted = committed(whole, made)
    with contextlib.suppress(Stopped):
        pretrain(config, context(folder, fence=StopsAt(2)), shards)
    again = context(folder, "a2", ("a1",))
    found = committed(again, pretrain(config, again, shards))
    moments = [file.bytes for file in made.files if "/moments-" in file.path]
    weights = [file.bytes for file in made.files if "/weights-" in file.path]
    return {
        "resumed": again.events.of("resumed"),  # type: ignore[attr-defined]
        "differing": differing(found, wanted),
        "kinds": sorted({name.partition("/")[0] for name in wanted}),
        "moments_to_weights": sum(moments) / sum(weights),
    }


def main(folder: Path) -> None:
    usual, new = planned({"peak_lr": 1e-3}), planned(SIGNUM)
    wrong, _ = verb("validate", "spec.yaml", "nodes.net.config.optimizer.damping=2")
    unknown, said = verb("validate", "spec.yaml", "nodes.net.config.optimizer.kind=signam")
    print(
        json.dumps(
            {"usual": usual, "new": new, "wrong": wrong, "unknown": unknown, "said": said["error"]["found"]}
            | {"schema": "damping" in json.dumps(verb("schema")[1]), "trained": trained(folder)}
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
