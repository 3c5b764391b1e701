"""What the section accepts, and what an estimate says of it."""

import subprocess
import sys

import pytest
from photos import photo_folder
from pydantic import ValidationError
from tars import tars

from vitpipe.infra.errors import UsageError
from vitpipe.stages.estimates import Known
from vitpipe.stages.ingest.config import IngestConfig, IngestResources
from vitpipe.stages.ingest.estimate import estimate

DIGITS = {"kind": "digits"}
GLYPHS = {"kind": "glyphs", "classes": 200, "images_per_class": 200, "image_px": 32}


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"source": {"kind": "floder", "root": "x"}}, "'folder', 'webdataset', .*'digits', 'glyphs'"),
        ({"source": {"kind": "folder"}}, "root"),
        ({"source": DIGITS, "splits": {"train": 0.8, "test": 0.1}}, r"0.8 \+ 0.1 = 0.9"),
        ({"source": DIGITS, "splits": {"../train": 1.0}}, "split name"),
        ({"source": DIGITS, "splits": "folders"}, "needs a folder source, not digits"),
        ({"source": DIGITS, "images_per_shard": 5, "shard_bytes": 5}, "not both"),
        ({"source": {**DIGITS, "limit": 0}}, "limit"),
        ({"source": {**DIGITS, "subset": {"fraction": 0}}}, "fraction"),
        ({"source": {**GLYPHS, "classes": 1}}, "classes"),
        ({"source": DIGITS, "bad_image_budget": -1}, "bad_image_budget"),
        ({"source": DIGITS, "shufle_seed": 1}, "shufle_seed"),
    ],
)
def test_refused(config, found):
    with pytest.raises(ValidationError, match=found):
        IngestConfig.model_validate(config)


def test_defaults_of_splits_follow_the_source():
    assert IngestConfig.model_validate({"source": GLYPHS}).splits == {"train": 1.0}
    assert IngestConfig.model_validate({"source": DIGITS}).splits == {"train": 0.8, "test": 0.2}
    assert IngestConfig.model_validate({"source": DIGITS, "splits": {"train": 1.0}}).splits == {"train": 1.0}


@pytest.mark.parametrize(("images", "allowed"), [(100, 10), (10_000, 10), (50_000, 50)])
def test_default_budget_is_ten_or_a_permille(images, allowed):
    assert IngestConfig.model_validate({"source": DIGITS}).bad_images_allowed(images) == allowed


def told(source, **more):
    return estimate(IngestConfig.model_validate({"source": source, **more}), IngestResources(), {}, Known())


def test_estimates(tmp_path):
    glyphs = told(GLYPHS)
    assert (glyphs.images, glyphs.num_classes, glyphs.splits) == (40_000, 200, {"train": 40_000})
    assert told({**GLYPHS, "limit": 100}).images == 100
    digits = told(DIGITS)
    assert digits.splits == {"test": 359, "train": 1438} and digits.num_classes == 10
    root = photo_folder(tmp_path / "user")
    folder = told({"kind": "folder", "root": str(root)})
    assert (folder.images, folder.num_classes, folder.splits) == (24, 3, {"train": 24})
    with pytest.raises(UsageError, match="no such folder"):
        told({"kind": "folder", "root": str(tmp_path / "none")})


def test_estimates_of_tars_go_by_the_first(tmp_path):
    folder = tars(tmp_path / "in", shards=5, each=8)
    found = told({"kind": "webdataset", "urls": str(folder), "classes": 3})
    assert found.num_classes == 3 and found.images == pytest.approx(40, rel=0.1)
    assert "the first of 5 files" in found.notes[0]
    assert told({"kind": "webdataset", "urls": f"{folder}/in-000000.tar"}).images == 8
    with pytest.raises(UsageError, match="no file of that name"):
        told({"kind": "webdataset", "urls": str(tmp_path / "none.tar")})


def test_running_an_ingest_needs_no_torch():
    code = "import sys, vitpipe.stages.ingest.run, vitpipe.stages.ingest.estimate; "
    code += "print([m for m in sys.modules if m in HEAVY])"
    heavy = "HEAVY = {'torch', 'torchvision', 'deepspeed', 'webdataset', 'ray', 'sklearn', 'matplotlib'}; "
    done = subprocess.run([sys.executable, "-c", heavy + code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
