"""ReaL on a constructed file: from real.json through shards to the score, against its authors' published script."""

import json

import numpy as np
import pytest
from inprocess import commit, make_context
from official_files import official, write_images
from photos import indexes

from vitpipe.stages.contract import Inputs
from vitpipe.stages.evaluate.quality import real_accuracy
from vitpipe.stages.images.evaluate import EvalImages
from vitpipe.stages.images.split import Split
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.run import run

IMAGES = 12


def published_rule(real_labels: list[list[int]], predictions: np.ndarray) -> float:
    """github.com/google-research/reassessed-imagenet, README: `pred in real_labels[i] ... if real_labels[i]`."""
    return float(np.mean([pred in real_labels[i] for i, pred in enumerate(predictions) if real_labels[i]]))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("real"), np.random.default_rng(3)
    rights = [sorted(rng.choice(1000, rng.integers(0, 4), replace=False).tolist()) for _ in range(IMAGES)]
    assert [] in rights and max(map(len, rights)) > 1, "some without a right label, some with several"
    (root / "real.json").write_text(json.dumps(rights))
    write_images(root, *(f"val/ILSVRC2012_val_{n:08d}.JPEG" for n in range(1, IMAGES + 1)), kind="JPEG")
    with pytest.MonkeyPatch.context() as patch:
        official(patch, "imagenet-real", root, {"test": IMAGES})
        source = {"kind": "benchmark", "name": "imagenet-real", "root": str(root)}
        context = make_context(root, "shards", IngestResources())
        data = commit(context, run(IngestConfig.model_validate({"source": source}), Inputs({}), context))
    return root, rights, data


@pytest.mark.parametrize("seed", range(5))
def test_the_score_is_that_of_the_published_script(world, seed):
    root, rights, data = world
    rng = np.random.default_rng(seed)
    guesses = [rng.choice(right) if right and rng.random() < 0.6 else rng.integers(1000) for right in rights]
    predictions = np.array(guesses)
    sources = [name for index in indexes(Split(data, "test", root / "cache")) for name in index.source]
    named = predictions[[int(name[-13:-5]) - 1 for name in sources]]
    found, counted = real_accuracy(named, EvalImages.labels_of(data, "test", root / "cache"))
    assert found == pytest.approx(published_rule(rights, predictions), abs=1e-12)
    assert counted == sum(map(bool, rights)) < IMAGES
