"""The tool that keeps the house (.ci/house): silent in a made tree that is in order, and told of each breach alone."""

import importlib.machinery
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[1] / ".ci" / "house"
GOOD = '"""A module."""\n\n\nclass {name}:\n    """A thing."""\n\n    def act(self) -> None:\n        """Acts."""\n'


def _load() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("house", str(TOOL))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("house", loader))  # type: ignore[arg-type]
    sys.modules["house"] = module  # NamedTuple asks for it
    loader.exec_module(module)
    return module


HOUSE = _load()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Puts a module into a tree that is in order."""

    def put(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return tmp_path

    for package in ("pipeline", "stages", "infra"):
        put(f"{package}/__init__.py", "")
        put(f"{package}/thing.py", GOOD.format(name=package.title()) + "\n\n# …\n" * 20)
    put("Makefile", "demo:\n\tpython -m vitpipe.stages.tool\n")
    return put


def test_a_tree_in_order_is_left_alone(write: Callable[[str, str], Path]) -> None:
    root = write("infra/more.py", '"""More."""\n\nTABLE = {\n    "a":  1,\n}  # fmt: skip\n' + "# …\n" * 20)
    assert list(HOUSE.findings(root)) == []
    done = subprocess.run([sys.executable, str(TOOL), str(root)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "The house is in order.\n")


LONG = '"""A module."""\n' + "# …\n" * 250
WIDE = '"""A module."""\n\n\ndef act() -> None:\n    """Acts."""\n' + "    print()\n" * 49
BARE = '"""A module."""\n\n\nclass Bare:\n    """A thing."""\n\n    def act(self) -> None:\n        print()\n'
OF = '"""A module."""\n\n\ndef act() -> None:\n    """Of a thing."""\n'
SKIP = '"""A module."""\n\nx = print(1,  2)  # fmt: skip\n'
OFF = '"""A module."""\n\n\ndef act() -> None:\n    """Acts."""\n    # fmt: off\n    print(1,  2)\n'
USED = GOOD.format(name="User") + "\n\nfrom vitpipe.stages import tiny\n" + "# …\n" * 30


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("stages/a.py", LONG, "stages/a.py:1: 251 lines, at most 250: split it"),
        ("stages/a.py", WIDE, "stages/a.py:4: act has 51 lines, at most 50"),
        ("stages/a.py", BARE, "stages/a.py:7: act has no docstring"),
        ("stages/a.py", "x = 1\n", "stages/a.py:1: no docstring"),
        ("stages/a.py", OF, "stages/a.py:4: act's docstring opens with 'Of'"),
        ("stages/a.py", SKIP, "stages/a.py:3: fmt: skip"),
        ("stages/a.py", OFF, "stages/a.py:6: fmt: off"),
        ("stages/utils.py", GOOD.format(name="Other"), "stages/utils.py:1: a module named utils"),
        ("stages/a.py", GOOD.format(name="Infra"), "stages/a.py:4: a class Infra stands at infra/thing.py:4 too"),
    ],
)
def test_each_breach_is_told_alone(write: Callable[[str, str], Path], name: str, text: str, said: str) -> None:
    (found,) = HOUSE.findings(write(name, text))
    assert found.startswith(said)
    done = subprocess.run([sys.executable, str(TOOL), str(write(name, text))], capture_output=True, check=False)
    assert done.returncode == 1


def test_a_tiny_module_belongs_into_its_one_user(write: Callable[[str, str], Path]) -> None:
    write("stages/tiny.py", GOOD.format(name="Tiny"))
    root = write("pipeline/user.py", USED)
    (found,) = HOUSE.findings(root)
    assert found == "stages/tiny.py:1: 8 lines and one user, pipeline.user: merge it into that"
    write("infra/user.py", USED.replace("class User", "class Second"))
    assert list(HOUSE.findings(root)) == [], "two users may share it"


@pytest.mark.parametrize("name", ["config", "estimate", "run", "tool"])
def test_what_is_called_by_its_name_may_be_tiny(write: Callable[[str, str], Path], name: str) -> None:
    """`tool` is run by the Makefile, the others by the table of stages."""
    write(f"stages/{name}.py", GOOD.format(name="Tiny"))
    assert list(HOUSE.findings(write("pipeline/user.py", USED.replace("tiny", name)))) == []


def test_the_shared_module_of_the_formats_is_the_one_exception(write: Callable[[str, str], Path]) -> None:
    root = write("stages/convert/formats/common.py", GOOD.format(name="Shared"))
    assert list(HOUSE.findings(root)) == []
    (found,) = HOUSE.findings(write("stages/convert/common.py", GOOD.format(name="Other")))
    assert found.startswith("stages/convert/common.py:1: a module named common")
