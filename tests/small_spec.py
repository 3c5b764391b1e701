"""A small spec that is right, and what `load` says of it once it is made wrong. For tests of YAML and command line."""

import pytest

from vitpipe.pipeline.spec.load import SpecError, load

GOOD = """\
version: 1
name: run
store: file://./runs
nodes:
  data: {stage: ingest, config: {source: {kind: digits}}}
  net:
    stage: pretrain
    needs: {shards: data}
    config: {model: {variant: S/16, image_px: 32}, batch_images: 30, total: 3 epochs}
"""


def problems(text: str, *overrides: str, **env: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load(text, overrides, env=env)
    assert "\n\n" not in str(caught.value)
    return [str(problem) for problem in caught.value.problems]


def with_node(text: str) -> str:
    return f"{GOOD}  more: {text}\n"
