"""Workers run the driver's own code, whatever lies in the folder where it was started."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CODE = """
import json, sys
from vitpipe.infra.ray import cluster, connect

connect.prepare_environment()
if sys.argv[1] == "as Ray does it":
    cluster._OwnCode = cluster.JobConfig

def found():
    import os
    try:
        import vitpipe.infra.errors as ours
        return ours.__file__, os.getcwd()
    except RuntimeError as error:
        return str(error), os.getcwd()

with connect.connect("own-code") as connected:
    import ray
    print(json.dumps(ray.get(ray.remote(found).remote())))
"""


@pytest.mark.ray
@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("ours", str(ROOT / "vitpipe" / "infra" / "errors.py")),
        ("as Ray does it", "the user's own vitpipe was imported"),
    ],
)
def test_a_users_folder_of_our_name_is_not_taken_for_ours(way: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "vitpipe").mkdir()
    (tmp_path / "vitpipe" / "__init__.py").write_text("raise RuntimeError('the user\\'s own vitpipe was imported')\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-c", CODE, way]  # -P: as in a script, the current folder is not searched
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [said, str(tmp_path)]
