"""Adding an optimiser is one file: laid into a copy of the packages, it works from `validate` to a resume."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGES = ("pipeline", "stages", "infra", "vitpipe", "vitpipe.py")


def test_one_file_is_an_optimiser_everywhere(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for one in (ROOT / name for name in PACKAGES):
        if one.is_dir():
            shutil.copytree(one, tree / one.name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        elif one.exists():
            shutil.copy(one, tree)
    shutil.copy(ROOT / "tests/stages/training/signum.py", tree / "stages/training/optim/rules")
    script = ROOT / "tests/stages/training/new_optimizer.py"
    environment = {**os.environ, "PYTHONPATH": f"{tree}:{ROOT / 'tests'}", "XDG_STATE_HOME": str(tmp_path / "state")}
    made = subprocess.run(
        [sys.executable, script, tmp_path / "work"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr[-3000:]
    found = json.loads(made.stdout.splitlines()[-1])
    (ok, usual), (fine, new) = found["usual"], found["new"]
    assert (ok, fine, found["wrong"], found["unknown"]) == (0, 0, 2, 2)
    assert "did you mean 'signum'" in found["said"] and found["schema"]
    assert usual["bytes"] == 2 * new["bytes"], "4 + 8 bytes a parameter of adamw, 4 + 2 of this one"
    assert new["memory_bytes"] < usual["memory_bytes"]
    trained = found["trained"]
    assert trained["resumed"] and trained["differing"] == []
    assert trained["kinds"] == ["signum_momentum", "updates", "weight"]
    assert 0.5 < trained["moments_to_weights"] < 0.6  # and headers
