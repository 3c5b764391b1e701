"""The wheel, installed where nothing else of the repository is, beside a user's own folders of our folders' names."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ("pipeline", "stages", "infra")
SPEC = """\
version: 1
name: tiny
store: file://./runs
nodes:
  digits: {stage: ingest, config: {source: {kind: digits, limit: 60}}}
  net:
    stage: pretrain
    needs: {shards: digits}
    config:
      model: {variant: {layers: 1, width: 16, mlp: 16, heads: 2, patch_px: 8}, image_px: 16}
      batch_images: 8
      total: 2 steps
      precision: fp32
"""


LIBRARY = """
import numpy, vitpipe
done = vitpipe.convert("runs/tiny/net", to="native", folder="written")
model = vitpipe.load("written")
assert len(model.labels) == 10 and model.predict(numpy.zeros((9, 9, 3), numpy.uint8)).label in model.labels
assert next(iter(vitpipe.ShardStream("runs/tiny/digits").samples()))["__key__"]
print(vitpipe.__version__, vitpipe.read_run("runs/tiny").name)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel and our dependencies, but without this repository."""
    clone, env = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("env")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():  # a copy: setuptools would take what an earlier build left in build/
        if (ROOT / name).exists() and not name.startswith(("docs/", "tests/")):
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name, follow_symlinks=False)
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "wheel", *quiet, "--wheel-dir", str(env), str(clone)], check=True)
    (wheel,) = env.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(env / "venv")], check=True)
    site = next((env / "venv" / "lib").glob("python*")) / "site-packages"
    # --target leaves alone what is installed here; --prefix would take it away
    subprocess.run([*pip, "install", *quiet, "--no-index", "--target", str(site), str(wheel)], check=True)
    # a folder named in a .pth is searched, but its own .pth files, as that of an editable install, are not run
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return env / "venv" / "bin" / "python"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder with packages of their own that are called like our folders, and must never be imported."""
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError('the user\\'s own {name} was imported')\n")
    (tmp_path / "tiny.yaml").write_text(SPEC)
    return tmp_path


def call(python: Path, *arguments: str, cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """The command that the wheel installs."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    code = "import sys; from importlib.metadata import entry_points as e; sys.argv[0] = 'vitpipe'; " + (
        "sys.exit(next(iter(e(group='console_scripts', name='vitpipe'))).load()())"
    )
    command = [str(python), "-P", "-c", code, *arguments]  # -P: as in a script, the current folder is not searched
    return subprocess.run(
        command,
        cwd=cwd,
        env={**clean, "RAY_USAGE_STATS_ENABLED": "0", **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("path", [{}, {"PYTHONPATH": "."}], ids=["plain", "PYTHONPATH"])
def test_it_runs_beside_folders_of_the_same_names(python: Path, folder: Path, path: Mapping[str, str]) -> None:
    asked = call(python, "--help", cwd=folder, env=path)
    assert asked.returncode == 0 and "conform" in asked.stdout, asked.stderr
    for preset in ("folder", "transfer", "compare"):
        made = call(python, "init", f"{preset}.yaml", "--preset", preset, cwd=folder, env=path)
        checked = call(python, "validate", f"{preset}.yaml", cwd=folder, env=path)
        assert (made.returncode, checked.returncode) == (0, 0), made.stderr + checked.stderr
    checked = call(python, "validate", "tiny.yaml", cwd=folder, env=path)
    assert checked.returncode == 0 and "ok, 2 nodes" in checked.stdout, checked.stderr
    if path:
        done = call(python, "run", "tiny.yaml", cwd=folder, env=path)
        assert done.returncode == 0, done.stderr
        assert (folder / "runs" / "tiny" / "net" / "record.json").exists()
        said = call(python, "--version", cwd=folder, env=path).stdout.strip()
        env = {**os.environ, **path, "XDG_CACHE_HOME": str(folder / "cache")}
        used = subprocess.run([python, "-c", LIBRARY], cwd=folder, env=env, capture_output=True, text=True, check=False)
        assert used.stdout.split() == [said, "tiny"] and said, used.stderr


@pytest.mark.slow
def test_the_users_folders_would_have_been_noticed(python: Path, folder: Path) -> None:
    """The control: what imports a folder's bare name finds the user's, and the wheel brings none of them."""
    for name in NAMES:
        done = subprocess.run([python, "-c", f"import {name}"], cwd=folder, capture_output=True, text=True, check=False)
        assert f"the user's own {name} was imported" in done.stderr
        command, env = [python, "-P", "-c", f"import {name}"], {**os.environ, "PYTHONPATH": ""}
        away = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert "No module named" in away.stderr
