"""Whether folders of images are laid out as the config reads them: splits where it means splits, classes where classes.

Knows the names of folders and files as a walk sees them, and what these say of formats; reads no file. No torch.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from vitpipe.stages.ingest.listing import some

_FORMS = {"train": "train(ing)?", "val": "val(id(ation)?)?|dev(elopment)?|eval(uation)?", "test": "test(ing)?"}
_NAMED = {split: re.compile(rf"({form})[ _-]?(set|split|images?|imgs?|data|\d+)?") for split, form in _FORMS.items()}
"""Folders that mean a split, as people call them: `Validation`, `test_set`, `train2017`."""

RELEASED = {
    "imagenet21k_train": "train",
    "imagenet21k_val": "val",
    "imagenet21k_small_classes": "small-classes",
}
"""The folders of the processed release of ImageNet-21k (Ridnik et al. 2021, processing_script.sh) and their splits."""

_WORD = re.compile(r"[A-Za-z]+")
_OWN = re.compile(r"[^/*?\[{]*[*?\[{].*|[^/]*/?$")
"""What of a pattern names files: from the first folder or name with a wildcard on, else the last name."""

NOT_READ = frozenset((".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".ppm"))
"""Files that a person would call an image, of formats that are set aside."""
IMAGE_SUFFIXES = NOT_READ.union((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"))
"""Files that a person would call an image; whether they are, their bytes decide."""
_OF_OTHER_KINDS = {".tar": "webdataset", ".parquet": "parquet"}
_ARCHIVES = frozenset((".zip", ".tgz", ".gz", ".7z", ".rar"))

FOLDERS = "set `splits: folders`"


class Misplaced(NamedTuple):
    """Why the folders cannot be meant as the config reads them, and what would be."""

    found: str
    do: str


def split_of(folder: str) -> str | None:
    """The split that a folder's name means, by the name that stages read: `Validation` is `val`. None for others."""
    named = (split for split, form in _NAMED.items() if form.fullmatch(folder.casefold()))
    return RELEASED.get(folder) or next(named, None)


def split_folder(folder: str) -> str:
    """The split that the images below a folder get: the folder's own name, but of the processed ImageNet-21k."""
    return RELEASED.get(folder, folder)


class SeenFolders:
    """The folders in which a walk meets images. `depth` is 1 for `root/class/*`, 2 for `root/split/class/*`."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.parents: set[tuple[str, ...]] = set()
        """Folders at the depth of classes that hold images, somewhere below them."""
        self.flat: set[str] = set()
        """Folders right below the root that hold images without a folder between."""
        self._common: tuple[str, ...] | None = None
        """The deepest folder that has all images below it."""
        self._children: set[str] = set()
        """Folders right below that one."""
        self._is_leaf = False
        """Whether it holds images itself."""

    def see(self, parts: tuple[str, ...]) -> None:
        """Take note of one image's path, which lies at least as deep as classes do."""
        self.parents.add(parts[: self.depth])
        if len(parts) == 2:
            self.flat.add(parts[0])
        folder = parts[:-1]
        if self._common is None:
            self._common = folder
        shared = _shared(self._common, folder)
        if shared < len(self._common):
            self._children, self._is_leaf = {self._common[shared]}, False
            self._common = self._common[:shared]
        if len(folder) == shared:
            self._is_leaf = True
        else:
            self._children.add(folder[shared])

    def misplaced(self, root: str) -> Misplaced | None:
        """Why these folders can hardly be meant so; None where nothing speaks against it."""
        if self.depth == 1:
            return self._splits_as_classes() or self._wrapped(root)
        if not self.parents or any(map(split_of, self._first)):
            return None
        return self._wrapped(root) or self._classes_as_splits()

    def notes(self) -> Iterator[str]:
        """Say which folders are splits of a name that no stage looks for by itself."""
        if self.depth == 1:
            return
        for name in map(split_folder, self._first):
            split = split_of(name)
            if split is None and name not in RELEASED.values():
                yield f"the folder {name!r} is read as a split, which no node takes unless it names it"
            elif split and name != split and split not in self._first:
                yield f"the folder {name!r} is a split of that name: rename it for nodes that look for {split!r}"

    @property
    def _first(self) -> list[str]:
        """The folders right below the root."""
        return sorted({parts[0] for parts in self.parents})

    def _splits_as_classes(self) -> Misplaced | None:
        """All folders are splits; or those of splits, among them one to train on, hold nothing but folders."""
        splits = [name for name in self._first if split_of(name)]
        nested = [name for name in splits if name not in self.flat]
        only = len(splits) == len(self._first)
        if not splits or not (only or (len(nested) == len(splits) > 1 and "train" in map(split_of, splits))):
            return None
        found = f"{'its only folders are' if only else 'among its folders are'} {some(splits)}: splits, not classes"
        if not nested:
            return Misplaced(found, f"put the images of each into a folder per class and {FOLDERS}, or name `labels`")
        return Misplaced(found, FOLDERS + _renamed(splits))

    def _wrapped(self, root: str) -> Misplaced | None:
        """One folder around all the others."""
        if not self._common or self._is_leaf:
            return None
        inner, around = sorted(self._children), "/".join(self._common)
        splits = [name for name in inner if split_of(name)]
        if self.depth == 2 and not splits:
            return None
        found = f"its only folder is {around!r}, which holds {len(inner)} folders of images: {some(inner)}"
        do = f"set `root: {root.rstrip('/')}/{around}`"
        if len(splits) == len(inner):
            return Misplaced(found, do + (" and `splits: folders`" if self.depth == 1 else "") + _renamed(splits))
        return Misplaced(found, f"{do}, whose folders are the classes, or name `labels`" if self.depth == 1 else do)

    def _classes_as_splits(self) -> Misplaced:
        """`root/class/more/*` read as `root/split/class/*`."""
        within = {name: {parts[1] for parts in self.parents if parts[0] == name} for name in self._first}
        found = f"with `splits: folders` {some(self._first)} would be splits, and none is named train, val or test"
        alike = len({frozenset(names) for names in within.values()}) == 1 and len(within) > 1
        if alike and len(next(iter(within.values()))) > 1:
            return Misplaced(found, "rename these folders to train, val and test: each holds the same classes")
        return Misplaced(found, "leave `splits: folders` out: they are the classes then, whatever lies below them")


def told_astray(astray: Sequence[str], is_alone: bool, depth: int) -> Misplaced:
    """What to do about images outside the folders of classes; `is_alone` says whether there are none inside."""
    layout = "root/split/class/*" if depth == 2 else "root/class/*"
    found, do = f"{len(astray)} images stand outside {layout}: {some(sorted(astray))}", "move them, or name `labels`"
    folders = {name.split("/")[0] for name in astray if name.count("/") == 1}
    if depth == 2 and is_alone and all(name.count("/") == 1 for name in astray):
        if not any(map(split_of, folders)):
            return Misplaced(found, f"leave `splits: folders` out: {some(sorted(folders))} are the classes then")
        do = "put the images of each split into a folder per class, or name `labels`"
    return Misplaced(found, do)


def splits_mixed(patterns: Iterable[str], files: Iterable[str]) -> Iterator[str]:
    """Say so where the names of files are of several splits, and no pattern asked for these by name."""
    counts = Counter(split for file in files for split in set(map(split_of, _WORD.findall(file))) if split)
    asked = {split_of(word) for pattern in patterns for own in _OWN.findall(pattern) for word in _WORD.findall(own)}
    if len(counts) > 1 and not counts.keys() & asked:
        told = ", ".join(f"{split} {count}" for split, count in sorted(counts.items()))
        yield f"its files are of several splits by their names ({told}), and all are read as one set: name those of one"


def misspelt(splits: Iterable[str]) -> Iterator[str]:
    """Say which splits nobody finds, for all others call them otherwise; a word for the source's own has none."""
    names = () if isinstance(splits, str) else tuple(splits)
    for name in names:
        if (meant := split_of(name)) and meant not in names:
            yield f"the split {name!r} is not looked for by that name: call it {meant!r}"


def unread_formats(names: Iterable[str]) -> Iterator[str]:
    """Say how many images are of formats that are not read, by their names."""
    total, counts = 0, Counter[str]()
    for name in names:
        total += 1
        if (suffix := suffix_of(name)) in NOT_READ:
            counts[suffix] += 1
    if counts:
        told = ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common())
        yield f"of {total} images {told} are, by their names, of a format that is not read: set aside unless converted"


def suffix_of(name: str) -> str:
    """`.heic` of `a/IMG_1.HEIC`; of a name without a dot all of it."""
    return name[name.rfind(".") :].lower()


def other_kind(suffixes: Iterable[str]) -> str:
    """What to do about a folder that has files of these suffixes, and no image."""
    there = set(suffixes)
    for suffix, kind in _OF_OTHER_KINDS.items():
        if suffix in there:
            return f"name a folder of images, or for its {suffix} files set `kind: {kind}` with `urls`"
    return "unpack its archives first" if there & _ARCHIVES else "name a folder of images"


def _renamed(splits: Iterable[str]) -> str:
    """Which folders need another name to be found by it."""
    names = set(splits)
    wrong = [(name, split) for name in sorted(names) if (split := split_of(name)) and split_folder(name) != split]
    return "".join(f", and rename {name!r} to {split!r}" for name, split in wrong if split not in names)


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """How many folders two paths have in common from their beginning."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
