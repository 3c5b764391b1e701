"""From the folders of images in tars to classes and splits, as folders on a disk have them. No torch."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from vitpipe.infra.errors import UsageError
from vitpipe.stages.images.classes import difference
from vitpipe.stages.ingest.listing import some
from vitpipe.stages.ingest.sources.folder_layout import FOLDERS, RELEASED, SeenFolders, split_folder, split_of


class ClassFolder(NamedTuple):
    """What images below one folder, or in one tar, are."""

    name: str
    """Their class."""
    split: str | None
    below: str
    """The folder that their names begin with: `n01440764`, or `train/n01440764`."""


def class_folders(folders: Collection[str], by_split: bool, official: bool, asked: str) -> dict[str, ClassFolder]:
    """The class and split of each folder, the path of which ends with both, or with the class.

    UsageError naming the folders that cannot be meant so.
    """
    found = {folder: _read(folder, by_split) for folder in folders}
    if loose := sorted(folder for folder, one in found.items() if not one.name or one.split == ""):
        layout = "split/class" if by_split else "class"
        do = f"leave `splits: {'official' if official else 'folders'}` out" if by_split else "name a tar a class"
        raise UsageError(asked, f"{len(loose)} stand in no folder {layout}: {some(loose)}", do)
    if by_split:
        _refuse_other_splits(found, official, asked)
    else:
        _refuse_splits(found, asked)
    seen: dict[str, str] = {}
    for folder, one in sorted(found.items()):
        other = seen.setdefault(one.below, folder)
        if other != folder:
            do = "name one of them in `urls`; or give the two classes two names"
            raise UsageError(asked, f"{other} and {folder} are both the class {one.below!r}", do)
    return found


def _read(folder: str, by_split: bool) -> ClassFolder:
    parts = folder.split("/")
    if not by_split:
        return ClassFolder(parts[-1], None, parts[-1])
    parent = parts[-2] if len(parts) > 1 else ""
    return ClassFolder(parts[-1], split_folder(parent), f"{parent}/{parts[-1]}")


def _refuse_splits(found: Mapping[str, ClassFolder], asked: str) -> None:
    """Where several folders are splits by their names, the same class in two of them is not one by mistake."""
    above = {folder.split("/")[-2] for folder in found if "/" in folder}
    if len(above) > 1 and all(map(split_of, above)):
        raise UsageError(asked, f"they stand in the folders {some(sorted(above))}: splits", FOLDERS)


def _refuse_other_splits(found: Mapping[str, ClassFolder], official: bool, asked: str) -> None:
    above = sorted({folder.split("/")[-2] for folder in found})
    others = [name for name in above if name not in RELEASED]
    if official and others:
        want = f"the processed release of ImageNet-21k has {some(RELEASED)}"
        raise UsageError(asked, f"their folders are {some(above)}; {want}", f"for splits of other names {FOLDERS}")
    if not any(map(split_of, above)):
        found_text = f"with `splits: folders` {some(above)} would be splits, and none is named train, val or test"
        raise UsageError(asked, found_text, "leave `splits: folders` out")


def split_notes(found: Mapping[str, ClassFolder]) -> list[str]:
    """What a person should know of the names of splits."""
    seen = SeenFolders(2)
    for one in found.values():
        if one.split is not None:
            seen.see((*one.below.split("/"), ""))
    return list(seen.notes()) if seen.parents else []


def of_one_split(parents: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Which classes a split lacks that another has: nobody learns what is in `test` alone."""
    splits: dict[str, set[str]] = {}
    for folder, name in sorted(parents):
        splits.setdefault(split_folder(folder), set()).add(name)
    train = "train" if "train" in splits else min(splits, default="")
    for split, names in splits.items():
        if names != splits[train]:
            differs = difference(sorted(splits[train]), sorted(names), (train, split))
            yield f"the class folders of {train} and {split} differ: {differs}"
