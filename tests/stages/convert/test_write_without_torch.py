"""The pass that writes files imports no torch, whatever it reads: torch alone is most of the memory it may take."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from converting import convert, wanted
from inprocess import make_context
from tiny_checkpoint import commit_checkpoint
from tiny_vit import tiny

from vitpipe.stages.convert.config import ConvertConfig, ConvertResources, ForeignSource
from vitpipe.stages.convert.foreign.weights import look
from vitpipe.stages.convert.task import Source, WriteTask

FORMATS = ("native", "timm", "huggingface", "torchvision", "google", "google_big_vision")
CHILD = """
import pickle, sys
for task in pickle.load(open(sys.argv[1], "rb")):
    from vitpipe.stages.convert.write import write
    print(len(write(task)), "files")
sys.exit("torch was imported" if "torch" in sys.modules else 0)
"""


def run(tmp_path: Path, *sources: Source, before: str = "") -> subprocess.CompletedProcess[str]:
    ctx = make_context(tmp_path, "alone", ConvertResources()).task
    tasks = [WriteTask(FORMATS, ConvertConfig(formats=FORMATS), source, (), ctx) for source in sources]
    (tmp_path / "tasks").write_bytes(pickle.dumps(tasks))
    command = [sys.executable, "-c", before + CHILD, str(tmp_path / "tasks")]
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}, timeout=120)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Source:
    return commit_checkpoint(tmp_path, tiny())


def test_it_imports_no_torch(tmp_path: Path, checkpoint: Source) -> None:
    weights = convert(tmp_path, checkpoint, wanted("native"))  # type: ignore[arg-type]
    weights.fetch("native/model.safetensors", tmp_path)
    foreign = look(ForeignSource(path=str(tmp_path / "native/model.safetensors"), heads=4), tmp_path / "scratch")
    done = run(tmp_path, checkpoint, weights, foreign)
    assert (done.returncode, done.stdout) == (0, "11 files\n" * 3), done.stderr


def test_it_would_be_seen(tmp_path: Path, checkpoint: Source) -> None:
    done = run(tmp_path, checkpoint, before="import sys, types; sys.modules['torch'] = types.ModuleType('torch')\n")
    assert done.returncode == 1 and "torch was imported" in done.stderr
