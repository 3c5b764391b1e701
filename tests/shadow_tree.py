"""A tree that imports as the project's own does, a few of its files added or changed: every other is a link to it."""

from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("vitpipe", "vitpipe.py", "pipeline", "stages", "infra")


def shadow_tree(tree: Path, changed: Mapping[str, str]) -> Path:
    """The tree at `tree`, to be put on PYTHONPATH; `changed` are the texts of files by their place in the project."""
    tree.mkdir(parents=True)
    folders = {parent for name in changed for parent in Path(name).parents}
    for name in PACKAGES:
        if (ROOT / name).exists():
            _mirror(Path(name), tree, folders)
    for name, text in changed.items():
        path = tree / name
        path.unlink(missing_ok=True)
        path.write_text(text)
    return tree


def _mirror(place: Path, tree: Path, folders: set[Path]) -> None:
    real = ROOT / place
    if real.is_symlink():  # within the project: here it leads to the same place of this tree
        (tree / place).symlink_to(real.readlink())
    elif real.is_dir() and (place in folders or any(one.is_symlink() for one in real.iterdir())):
        (tree / place).mkdir()
        for entry in real.iterdir():
            if entry.name != "__pycache__":
                _mirror(place / entry.name, tree, folders)
    else:
        (tree / place).symlink_to(real)
