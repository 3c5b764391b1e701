"""The doctor says what is wrong and what to do, and keeps answering when Ray and torch would not import."""

import errno
import importlib.metadata
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from vitpipe.infra.errors import StorageError
from vitpipe.infra.storage import folders, mounts
from vitpipe.infra.storage.conditions import SECOND_CREATE
from vitpipe.infra.storage.local import LocalStore
from vitpipe.pipeline.cli import doctor_verb
from vitpipe.pipeline.cli.doctor import Check, checks, failure
from vitpipe.pipeline.cli.main import invoke
from vitpipe.pipeline.drive.lease import acquire
from vitpipe.stages.images.native import compilation


def look(store: str, name: str) -> Check:
    return next(check for check in checks(store) if check.name.startswith(name))


@pytest.fixture
def here(tmp_path: Path) -> str:
    return f"file://{tmp_path}/runs"


def test_a_folder_makes_the_round_trip_and_is_left_clean(here, tmp_path):
    check = look(here, "store")
    assert check.ok and "swapped" in check.found and check.do == ""
    assert list((tmp_path / "runs").iterdir()) == []
    assert look(here, "clock").ok


@pytest.mark.s3
def test_s3_makes_the_round_trip(s3_uri):
    assert look(s3_uri, "store").ok
    assert look(s3_uri, "clock").ok


@pytest.mark.s3
def test_wrong_credentials_are_said(s3_uri, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    check = look(s3_uri, "store")
    assert not check.ok and "403" in check.found and "AWS_SECRET_ACCESS_KEY" in check.do
    assert "canary" not in str(check)


def test_a_store_that_forgets_to_compare_is_found(here, monkeypatch):
    monkeypatch.setattr(LocalStore, "create", lambda self, path, data: self.write(path, data).sha256)
    check = look(here, "store")
    assert not check.ok and SECOND_CREATE in check.found


def test_mount_options_are_warned_of_by_name(here, monkeypatch, tmp_path):
    assert look(here, "file system").ok and "warning" not in look(here, "file system").found
    (tmp_path / "mountinfo").write_text(f"42 22 0:42 / {tmp_path} rw - lustre a@tcp:/x rw,localflock\n")
    monkeypatch.setattr(mounts.mount_of, "__defaults__", (tmp_path / "mountinfo",))
    assert "lustre at" in look(here, "file system").found and "warning: localflock" in look(here, "file system").found


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_hard_links_is_named(here, monkeypatch, number):
    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(folders.os, "link", refuse)
    check = look(here, "store")
    assert not check.ok and "no hard links" in check.found and "XFS" in check.do
    with pytest.raises(StorageError, match="no hard links"):
        acquire(LocalStore(Path(here.removeprefix("file://"))))


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_scratch_without_locks_is_named(here, monkeypatch, number):
    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(folders.fcntl, "flock", refuse)
    check = look(here, "disk")
    assert not check.ok and "gives no locks" in check.found and "TMPDIR" in check.do
    assert look(here, "store").ok, "commits need none"


def test_an_unwritable_store_is_said():
    check = look("file:///sys/vitpipe", "store")
    assert not check.ok and "/sys/vitpipe" in check.found and check.do


@pytest.mark.parametrize(
    ("name", "variable", "value"),
    [
        ("ray", "RAY_AUTH_MODE", "disabled"),
        ("cluster", "RAY_ADDRESS", "127.0.0.1:9"),
        ("cluster", "RAY_ADDRESS", "nonsense"),
    ],
)
def test_what_lacks_is_said_with_what_to_do(here, monkeypatch, name, variable, value):
    monkeypatch.setenv(variable, value)
    check = look(here, name)
    assert not check.ok and check.do


def test_a_reader_without_its_extension_is_slower_not_broken(here, monkeypatch):
    monkeypatch.setattr(compilation, "compiled_extension", lambda: None)
    check = look(here, "reader")
    assert check.ok and "decoded whole" in check.found and compilation.PACKAGE in check.found
    monkeypatch.setattr(compilation, "compiled_extension", lambda: Path("/made/here.so"))
    assert look(here, "reader") == Check("reader", True, "/made/here.so")


def test_a_token_must_be_private(here, monkeypatch, tmp_path):
    token = tmp_path / "token"
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    assert look(here, "token").ok, "the first run makes one"
    token.write_text("secret")
    token.chmod(0o644)
    check = look(here, "token")
    assert not check.ok and check.do == f"chmod 600 {token}" and "secret" not in str(check)
    token.chmod(0o600)
    assert look(here, "token").ok


def test_graphics_cards_are_asked_of_the_driver(here, monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert look(here, "GPUs") == Check("GPUs", True, "NVIDIA H200, 143771 MiB")
    program.write_text("#!/bin/sh\necho 'driver/library version mismatch' >&2\nexit 18\n")
    check = look(here, "GPUs")
    assert not check.ok and "mismatch" in check.found


def test_a_compiler_is_wanted_where_there_are_graphics_cards(here, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    check = look(here, "compiler")
    assert check.ok and "no C compiler" in check.found, "on CPUs nothing is compiled"
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    check = look(here, "compiler")
    assert not check.ok and "apt-get install gcc" in check.do


def test_what_is_wrong_ends_with_7():
    assert failure([Check("a", True, "")]) is None
    error = failure([Check("a", True, ""), Check("disk", False, "full", "free some"), Check("clock", False, "", "x")])
    assert error is not None and error.code == 7 and "disk, clock" in str(error)


def test_imports_nothing_heavy(here):
    code = f"""if True:
        import sys
        from vitpipe.pipeline.cli.doctor import checks
        list(checks({here!r}))
        print(sorted({{"torch", "ray", "boto3", "deepspeed"}} & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


ASKED = [
    "ray[default,train]>=2.60,<2.61", "torch>=2.14,<2.16", "packaging>=20",
    'timm>=1.0,<1.1; extra == "parity"', 'h5py>=3; extra == "benchmarks"', 'pytest>=9; extra == "dev"',
]  # fmt: skip
INSTALLED = {"ray": "2.60.3", "torch": "2.15.0+cu130", "packaging": "26.3", "timm": "1.0.31"}


@pytest.mark.parametrize(
    ("installed", "found", "do"),
    [
        ({}, "each as asked for", ""),
        ({"ray": "2.61.0"}, "ray 2.61.0 is outside of <2.61,>=2.60", "pip install 'ray[default,train]<2.61,>=2.60'"),
        ({"torch": "2.15.1.dev1"}, "each as asked for", ""),
        ({"torch": "2.16.0"}, "torch 2.16.0 is outside of <2.16,>=2.14", "pip install 'torch<2.16,>=2.14'"),
        ({"timm": "1.1.0"}, "timm 1.1.0 is outside of <1.1,>=1.0", "pip install 'timm<1.1,>=1.0'"),
        ({"packaging": None}, "packaging is not installed", "pip install 'packaging>=20'"),
        ({"pytest": "8.4.0"}, "each as asked for", ""),
    ],
)
def test_what_is_installed_is_held_against_what_is_asked_for(here, monkeypatch, installed, found, do):
    """An extra that is not installed at all, as h5py here, is no fault, nor is a user's own pytest."""
    versions = INSTALLED | installed

    def version(name):
        if versions.get(name) is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ASKED)
    monkeypatch.setattr(importlib.metadata, "version", version)
    check = look(here, "packages")
    assert check.ok is not bool(do) and found in check.found and check.do.startswith(do)
    assert (failure([check]) is None) is check.ok


def test_it_answers_where_vitpipe_is_a_folder_and_not_installed(here, monkeypatch):
    def nowhere(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", nowhere)
    check = look(here, "packages")
    assert check.ok and "not installed" in check.found


def test_the_bounds_stand_where_private_parts_are_read():
    """Those of this project's own file, for what is installed says what an older one asked for."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    asked = {one.name: one.specifier for one in map(Requirement, project["dependencies"])}
    for name in ("ray", "deepspeed", "torch", "webdataset", "s3transfer", "boto3", "pydantic", "pillow"):
        installed = importlib.metadata.version(name)
        assert any(bound.operator == "<" for bound in asked[name]), name
        assert asked[name].contains(installed) and not asked[name].contains("99"), name


def test_a_gpu_is_checked_by_a_program_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is told what was asked, and the data sheet's peak of the GPU that is here; its exit code is the verb's."""
    (tmp_path / "words.py").write_text("import sys; print(sys.argv[1:]); sys.exit(7)")
    monkeypatch.setattr(doctor_verb, "GPU_CHECK", "words")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    asked = ["--minutes", "2", "--sections", "losses"]
    assert invoke(["doctor", "--gpu", *asked]) == 7
    peak = ["--peak-flops", "989000000000000"]
    assert capfd.readouterr().out.strip() == str(["--minutes", "2.0", "--sections", "losses", *peak])
    program.unlink()
    assert invoke(["doctor", "--gpu", "--json"]) == 7
    assert capfd.readouterr().out.strip() == str(["--json"])


def test_a_check_of_the_gpu_ends_itself_where_the_verb_is_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import os, pathlib, signal, time; signal.signal(15, lambda *_: (pathlib.Path('ended').touch(), os._exit(0)))"
    )
    (tmp_path / "waits.py").write_text(f"{code}; os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)")
    monkeypatch.setattr(doctor_verb, "GPU_CHECK", "waits")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert invoke(["doctor", "--gpu"]) == 6
    assert (tmp_path / "ended").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--minutes", "2"], "--minutes belong to --gpu"), (["--gpu", "--cluster"], "not a cluster's")],
)
def test_options_of_a_gpu_check_need_it(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["doctor", *words]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
