"""How many images tars of classes hold, for a plan: by their headers where that is quick, else by their beginning."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from vitpipe.infra.errors import UsageError
from vitpipe.stages.ingest.listing import some
from vitpipe.stages.ingest.sources.class_folders import class_folders
from vitpipe.stages.ingest.sources.class_tar_images import ClassTars
from vitpipe.stages.ingest.sources.file_stream import ForwardWindow, PackedFile
from vitpipe.stages.ingest.sources.patterns import SourceFile
from vitpipe.stages.ingest.sources.source_settings import LOOK_SECONDS, SourceCount, formats_by, suffix_of
from vitpipe.stages.ingest.sources.tar_contents import SUFFIXES, Holds, broken, clean_name, holds, is_hidden, is_image
from vitpipe.stages.ingest.sources.tar_walk import Damage, Member, ReadableAt, walk
from vitpipe.stages.ingest.sources.window import Window

QUICK_BYTES = 1_000_000_000
"""Tars of so many bytes are listed whole."""
SAMPLE_BYTES = 64_000_000
"""Of what is packed or large, so many bytes are looked at."""


class _Image(NamedTuple):
    folder: str
    size: int
    end: int
    """Where in the file it ends."""
    suffix: str


def listed_count(opened: ClassTars) -> SourceCount | None:
    """The listing's own count; None where listing takes a while. UsageError as listing."""
    if sum(file.size for file in opened.given) > QUICK_BYTES:
        return None
    listing = opened.listing()
    count, classes = len(listing.items), listing.classes
    each_bytes = sum(item.size for item in listing.items) / count
    splits = Counter(item.split for item in listing.items if item.split is not None)
    form = formats_by(Counter(suffix_of(item.name) for item in listing.items))
    return SourceCount(count, each_bytes, LOOK_SECONDS, len(classes), classes, splits, listing.notes, form)


def plain_sample(opened: ClassTars) -> SourceCount:
    """From the beginning of the first tar; the classes are known where each has a tar."""
    first, total = opened.files[0], sum(file.size for file in opened.files)
    images = list(_within(_images(opened, first, Window(first)), SAMPLE_BYTES))
    if not images:
        raise UsageError(f"ingest {first.uri}", "no image is in its beginning", "check `urls`")
    seen = (images[-1].end if images[-1].end > SAMPLE_BYTES else first.size) / total
    if opened.in_tree:
        return _reckoned(opened, images, seen, None)
    sizes = {opened.folder_of(file): file.size for file in opened.files}
    return _reckoned(opened, images, seen, sizes)


def packed_sample(opened: ClassTars) -> SourceCount:
    """From the beginning of the first file, or from all of it; IntegrityError for one that is damaged there."""
    files = opened.given
    packed = PackedFile(files[0])
    window = ForwardWindow(packed.plain())
    images, ended = list[_Image](), True
    for image in _unpacked_images(opened, files[0], window, len(files) == 1):
        images.append(image)
        if window.passed > SAMPLE_BYTES:
            ended = False
            break
    if not images:
        raise UsageError(f"ingest {files[0].uri}", "it holds no image", "check `urls`")
    total = sum(file.size for file in files)
    seen = (files[0].size if ended else packed.taken) / total
    counts = Counter(image.folder for image in images)
    if len(files) > 1 and set(counts) == {opened.folder_of(files[0])}:
        return _reckoned(opened, images, seen, {opened.folder_of(file): file.size for file in files})
    return _reckoned(opened, images, seen, counts if ended and len(files) == 1 else None)


def held_by(file: SourceFile) -> Holds:
    """What a file among others holds, by its beginning. IntegrityError for one that is damaged there."""
    return holds(file.name, walk(ForwardWindow(PackedFile(file).plain())), alone=False)


def _reckoned(
    opened: ClassTars, images: Sequence[_Image], seen: float, folders: "dict[str, int] | Counter[str] | None"
) -> SourceCount:
    """Of images that are `seen` of all; `folders` are all that there are, with their weights, where they are known."""
    count = round(len(images) / seen)
    each_bytes = sum(image.size for image in images) / len(images)
    form = formats_by(Counter(image.suffix for image in images))
    notes = () if seen == 1 else (f"reckoned from {len(images)} images, {seen:.2g} of the bytes",)
    if not opened.labelled and not opened.by_split:
        return SourceCount(count, each_bytes, LOOK_SECONDS, 0, (), notes=notes, formats=form)
    if folders is None:
        return SourceCount(count, each_bytes, LOOK_SECONDS, notes=notes, formats=form)
    asked = f"ingest the tars {some(opened.patterns)}"
    placed = class_folders(set(folders), opened.by_split, opened.official, asked)
    splits = Counter[str]()
    for folder, one in placed.items():
        if one.split is not None:
            splits[one.split] += folders[folder]
    names = opened.fixed.names if opened.fixed else tuple(sorted({one.name for one in placed.values()}))
    names = names if opened.labelled else ()
    return SourceCount(count, each_bytes, LOOK_SECONDS, len(names), names, splits, notes, form)


def _within(images: Iterator[_Image], limit: int) -> Iterator[_Image]:
    for image in images:
        yield image
        if image.end > limit:
            return


def _images(opened: ClassTars, file: SourceFile, window: ReadableAt) -> Iterator[_Image]:
    """The images of a plain tar."""
    folder = opened.folder_of(file)
    for one in walk(window):
        if isinstance(one, Member) and is_image(path := clean_name(one.name)) and not is_hidden(path):
            yield _Image(opened.place(folder, path)[0], one.size, one.offset + one.size, suffix_of(path))


def _unpacked_images(opened: ClassTars, file: SourceFile, window: ForwardWindow, alone: bool) -> Iterator[_Image]:
    """The images of what unpacks to a tar, by the layout that it turns out to have."""
    held = None
    for one in walk(window):
        if isinstance(one, Damage):
            raise broken(file, one.text)
        path = clean_name(one.name)
        if is_hidden(path):
            continue
        if held is None and (is_image(path) or path.lower().endswith(SUFFIXES)):
            held = holds(file.name, [one], alone)
            opened = replace(opened, in_tree=held == "tree")
        if path.lower().endswith(SUFFIXES):
            inner = replace(file, name=path)
            yield from _images(opened, inner, _Inner(window, one))
        elif is_image(path):
            folder = opened.folder_of(file)
            yield _Image(opened.place(folder, path)[0], one.size, one.offset + one.size, suffix_of(path))


class _Inner:
    """A tar within one that comes once."""

    def __init__(self, window: ForwardWindow, member: Member) -> None:
        self._window, self._start, self.size = window, member.offset, member.size

    def read(self, start: int, length: int) -> bytes:
        return self._window.read(self._start + start, max(0, min(length, self.size - start)))
