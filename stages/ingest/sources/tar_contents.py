"""What a tar of images holds: one class, one tar a class, or a tree of class folders. No torch.

Knows names in tars: what becomes a class and a split, `class_folders.py` decides.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Literal

from vitpipe.infra.errors import IntegrityError, UsageError
from vitpipe.stages.ingest.sources.file_table import FileTable
from vitpipe.stages.ingest.sources.folder_layout import IMAGE_SUFFIXES, split_of, suffix_of
from vitpipe.stages.ingest.sources.folder_walk import is_aside
from vitpipe.stages.ingest.sources.patterns import SourceFile
from vitpipe.stages.ingest.sources.tar_walk import Damage, Member, packed_as, walk
from vitpipe.stages.ingest.sources.window import Window

Holds = Literal["images", "tars", "tree"]
"""Images of the class that the tar is named after; tars of one class each; or images in folders of classes."""

SUFFIXES = (".tar", ".tar.gz", ".tgz")
PACKED = (".gz", ".tgz")
LOOKED_AT = 2_000
"""Members in which an image or a tar has to come."""


def clean_name(member: str) -> str:
    """A member's name without what leads to where it was packed: `./n01440764/x.JPEG` is `n01440764/x.JPEG`."""
    return "/".join(part for part in member.split("/") if part not in ("", "."))


def is_hidden(name: str) -> bool:
    """Whether it, or a folder that it is in, is no part of the data, as in a folder of images."""
    return any(map(is_aside, name.split("/")))


def is_image(name: str) -> bool:
    """Whether it ends as images do."""
    return suffix_of(name) in IMAGE_SUFFIXES


def without_suffix(tar: str) -> str:
    """`n01440764` of `n01440764.tar`, and of a packed one."""
    ends = [suffix for suffix in SUFFIXES if tar.lower().endswith(suffix)]
    return tar[: -max(map(len, ends))] if ends else tar


def holds(file: str, members: Iterable[Member | Damage], alone: bool) -> Holds:
    """By the first image or tar in it; `alone` says whether it is all there is of the source.

    One tar among others is one class, unless its name is that of a split. A folder of its own name, as `tar` packs
    one, makes no tree of it.
    """
    own = without_suffix(file.rpartition("/")[2])
    for one in islice(members, LOOKED_AT):
        name = clean_name(one.name) if isinstance(one, Member) else ""
        if not name or is_hidden(name):
            continue
        if name.lower().endswith(SUFFIXES):
            return "tars"
        if is_image(name):
            folders = name.split("/")[:-1]
            in_folders = bool(folders) and folders[-1] != own
            return "tree" if in_folders and (alone or split_of(own)) else "images"
    return "images"


def class_tars_in(files: Sequence[SourceFile]) -> tuple[Sequence[SourceFile], bool]:
    """The tars of one class each that plain files are or hold, and whether they are trees of classes instead.

    IntegrityError for a damaged tar of tars, UsageError for a packed one within another, and for two kinds together.
    """
    kind = _held(files[0], len(files) == 1)
    if kind == "tars":
        inner = [part for file in files for part in _inner(file)]
        return FileTable(replace(part, number=number) for number, part in enumerate(inner)), False
    if kind == "tree":
        refuse_mixture({file.name: _held(file, len(files) == 1) for file in files})
    return FileTable(files), kind == "tree"


def refuse_mixture(found: dict[str, Holds]) -> None:
    """UsageError where some tars hold folders of classes and others are one class each."""
    kinds = {kind: file for file, kind in found.items()}
    if len(kinds) > 1:
        told = {"images": "images of one class", "tars": "a tar a class", "tree": "folders of classes"}
        they = "; ".join(f"{file} holds {told[kind]}" for kind, file in sorted(kinds.items()))
        raise UsageError(
            "read these tars as one source", they, "name those of one layout in `urls`, and the others apart"
        )


def _held(file: SourceFile, alone: bool) -> Holds:
    window = Window(file)
    refuse_packed(file, window)
    return holds(file.name, walk(window), alone)


def refuse_packed(file: SourceFile, window: Window) -> None:
    """UsageError for a tar whose first bytes are a sign of compression, whatever it is called."""
    if packing := packed_as(window):
        do = "unpack it to a plain .tar first"
        if packing == "gzip":
            do = "let its name end with .tar.gz, by which it is known"
        raise UsageError(f"read {file.uri}", f"it is packed with {packing}", do)


def _inner(file: SourceFile) -> Iterator[SourceFile]:
    """The tars in one tar, by its headers alone."""
    window = Window(file)
    refuse_packed(file, window)
    for one in walk(window):
        if isinstance(one, Damage):
            raise broken(file, one.text)
        name = clean_name(one.name)
        if is_hidden(name) or not name.lower().endswith(SUFFIXES):
            continue
        if one.fault or name.lower().endswith(PACKED):
            found = one.fault or f"it holds the packed tar {name}"
            raise UsageError(f"read {file.uri}", found, "unpack it into a folder, and name that in `urls`")
        yield replace(file, name=name, start=file.start + one.offset, size=one.size)


def broken(file: SourceFile, found: str) -> IntegrityError:
    """The error of a tar of many classes that is not whole: what it lacks would be missing from the classes."""
    do = "fetch the whole file again, and compare it with the size and digest that its publisher gives"
    return IntegrityError(f"read {file.uri}", found, do)
