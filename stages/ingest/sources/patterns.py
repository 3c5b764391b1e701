"""From `urls` to the files that they name: braces as webdataset's, globs, folders; on disk, S3 or the Hub. No torch.

Knows names and sizes, not what is in the files. Nothing is opened by name but by our own stores.
"""

import glob
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, islice, takewhile
from pathlib import Path

from braceexpand import braceexpand

from vitpipe.infra.errors import UsageError
from vitpipe.infra.storage.folders import state_of
from vitpipe.infra.storage.opening import open_store, split_uri
from vitpipe.stages.ingest.listing import some
from vitpipe.stages.ingest.sources.folder_layout import IMAGE_SUFFIXES
from vitpipe.stages.ingest.sources.folder_walk import is_litter
from vitpipe.stages.sighting import etag_mark, time_mark

MAX_NAMES = 1_000_000
"""Names that one pattern may stand for."""
LOOKED_AT = 100
"""Files of a folder that tell what it holds."""
MAX_NESTED = 100
"""Braces within braces: each costs its reader a level of the stack."""
SHOWN = 200
"""Characters of a pattern in a message."""
_NUMBERS = re.compile(r"\{(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?\}")
_OF_BRACES = re.compile(r"\\.|\{(?:-?\d+\.\.-?\d+|[A-Za-z]\.\.[A-Za-z])(?:\.\.-?\d+)?\}|[{},]", re.DOTALL)
"""What a pattern is made of: an escaped character, a range, or a mark of a list."""
_WILD = re.compile(r"[*?\[]")
_SPECIAL = re.compile(r"[*?\[{]")
_TOKENS = re.compile(r"\*\*/|\*\*|\*|\?|\[[^\]/]+\]|.")
_REMEDY = "correct `urls`: names, braces like {000..099}, globs or folders; local, s3://bucket/ or hf://owner/name/"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source."""

    number: int
    name: str
    """Below the folder that all files have in common; stands in the names of its images."""
    folder: str
    """URI of the store that it lies in."""
    path: str
    """In that store."""
    size: int
    version: str | None = None
    """As it was listed; another one is not read."""
    start: int = 0
    """The byte at which it begins, where it lies whole within a larger file."""

    @property
    def uri(self) -> str:
        """Where it lies, whole."""
        return f"{self.folder}/{self.path}"

    @property
    def is_local(self) -> bool:
        """Whether it lies on a disk of this machine."""
        return self.folder.startswith("file://")

    def mark(self) -> int:
        """What is another after it was written again. OSError for a local file that is gone."""
        return time_mark(os.stat(self.uri.removeprefix("file://"))) if self.is_local else etag_mark(self.version)


def find_files(urls: Sequence[str], suffix: str, all_there: bool = True) -> tuple[SourceFile, ...]:
    """The files that `urls` name, sorted by URI. A folder or prefix stands for all below it that end in `suffix`, or in
    one of several, joined by `;`.

    UsageError naming the pattern that nothing answers to, and the files missing of one in braces; unless `all_there`
    is false: then those that are there.
    """
    found: dict[str, tuple[int, str | None]] = {}
    for url in urls:
        for uri, size, version in _files(url, suffix, all_there):
            if uri in found:
                raise UsageError(f"read {url!r}", f"{uri} is named twice by `urls`", "name each file once")
            found[uri] = size, version
    common = _common_folder(found)
    return tuple(
        SourceFile(number, uri.removeprefix(common), uri.rpartition("/")[0], uri.rpartition("/")[2], *facts)
        for number, (uri, facts) in enumerate(sorted(found.items()))
    )


def expand(pattern: str) -> list[str]:
    """`a-{00..02}.{x,y}` as all its names, in order, as webdataset has them: by the function that it calls itself.

    UsageError for too many of them, told before they are made, and for braces that do not close.
    """
    asked = f"read {pattern if len(pattern) <= SHOWN else pattern[:SHOWN] + '...'!r}"
    try:
        deepest = max(accumulate((char == "{") - (char == "}") for char in pattern), default=0)
        if deepest > MAX_NESTED:
            raise ValueError(f"they are nested {deepest} deep")
        count = count_names(pattern)
        if count > MAX_NAMES:
            raise UsageError(asked, f"it stands for {count} names, the most is {MAX_NAMES}", "use a glob")
        return list(braceexpand(pattern))
    except ValueError as error:
        raise UsageError(asked, f"its braces cannot be meant: {error}", _REMEDY) from error


def count_names(pattern: str) -> int:
    """How many names a pattern stands for, no fewer where a brace lacks its other. ValueError for too long a number."""
    return _in_pairs(pattern) if _is_paired(pattern) else _at_most(pattern)


def _in_pairs(pattern: str) -> int:
    open_braces = [[1, 0]]  # of each: names of the alternative under way, and of those before it
    for token in _OF_BRACES.findall(pattern):
        if token == "{":
            open_braces.append([1, 0])
        elif token == "," and len(open_braces) > 1:
            here = open_braces[-1]
            open_braces[-1] = [1, here[0] + here[1]]
        elif token == "}" and len(open_braces) > 1:
            open_braces[-2][0] *= sum(open_braces.pop())
        elif numbers := _NUMBERS.fullmatch(token):
            first, last, step = int(numbers[1]), int(numbers[2]), int(numbers[3] or 1) or 1
            open_braces[-1][0] *= abs(last - first) // step + 1
        elif token.startswith("{"):
            open_braces[-1][0] *= len(list(braceexpand(token)))
    return open_braces[0][0]


def _is_paired(pattern: str) -> bool:
    """Whether every brace has its other; what one without is to braceexpand depends on all around it."""
    depth = 0
    for token in _OF_BRACES.findall(pattern):
        depth += (token == "{") - (token == "}")
        if depth < 0:
            return False
    return depth == 0


def _at_most(pattern: str) -> int:
    """No fewer names than a pattern stands for, however its braces are read."""
    tokens = _OF_BRACES.findall(pattern)
    ranges = (_in_pairs(token) for token in tokens if len(token) > 1 and token.startswith("{"))
    return math.prod(ranges) << tokens.count(",")


def _files(url: str, suffix: str, all_there: bool) -> list["_FoundFile"]:
    """Each file that one pattern names."""
    distant = url.startswith(("s3://", "hf://"))
    pattern, look = _elsewhere(url, suffix) if distant else _on_disk(url, suffix, all_there)
    as_it_stands = look(pattern)  # a name that is there is meant, whatever characters it has
    if as_it_stands:
        return as_it_stands
    names = expand(pattern)
    found = [look(name) for name in names]
    missing = [name for name, files in zip(names, found, strict=True) if not files]
    if missing and all_there and len(names) > 1:
        raise UsageError(f"read {url!r}", f"{len(missing)} of {len(names)} are not there: {some(missing)}", _REMEDY)
    if missing and all_there:
        do = "set `kind: folder` with `root`: images lie below it" if _has_images(pattern) else _REMEDY
        ends = suffix.replace(";", ", ")
        raise UsageError(f"read {url!r}", f"no file of that name or pattern, nor one below it with {ends}", do)
    return [file for files in found for file in files]


def _has_images(folder: str) -> bool:
    """Whether the first files below a local folder are images, by their names."""
    below = (path for path in Path(folder).rglob("*") if path.is_file()) if os.path.isdir(folder) else ()
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in islice(below, LOOKED_AT))


def _in_litter(name: str, folder: str) -> bool:
    """Whether a file below a folder is what a file server or a desktop left there, such as `._train.tar`."""
    return any(map(is_litter, name.removeprefix(folder).split("/")))


_FoundFile = tuple[str, int, str | None]
"""URI, size and version."""
_Find = Callable[[str], list[_FoundFile]]


def _on_disk(url: str, suffix: str, all_there: bool) -> tuple[str, _Find]:
    def look(name: str) -> list[_FoundFile]:
        if os.path.isdir(name):
            ends = suffix.split(";")
            below = (str(path) for one in ends for path in Path(name).rglob(f"*{one}"))
            names = [one for one in below if not _in_litter(one, name)]
        else:
            names = [name] if os.path.lexists(name) else glob.glob(name, recursive=True)
        lost = [one for one in sorted(names) if os.path.islink(one) and not os.path.exists(one)]
        if lost and all_there:
            found, do = (
                f"{len(lost)} of {len(names)} files are links to nothing: {some(lost)}",
                "fetch what they lead to",
            )
            raise UsageError(f"read {url!r}", found, f"{do}, or name the others alone")
        there = [(one, os.stat(one)) for one in sorted(names) if os.path.isfile(one)]
        return [(f"file://{one}", state.st_size, state_of(state)) for one, state in there]

    return os.path.abspath(url.removeprefix("file://")), look


def _elsewhere(url: str, suffix: str) -> tuple[str, _Find]:
    """In a bucket, or in a repository on the Hub."""
    root, pattern = split_uri(url)
    fixed, ends = _SPECIAL.split(pattern)[0], tuple(suffix.split(";"))
    store = open_store(root)
    there = {entry.path: entry for entry in store.list(fixed)}

    def look(name: str) -> list[_FoundFile]:
        folder = f"{name.rstrip('/')}/" if name else ""
        below = (one for one in there if one.startswith(folder) and one.endswith(ends))
        names = [name] if name in there else [one for one in below if not _in_litter(one, folder)]
        if not names and _WILD.search(name):
            names = [one for one in there if _matcher(name).fullmatch(one)]
        return [(f"{store.uri}/{one}", there[one].bytes, there[one].version) for one in names]

    return pattern, look


@lru_cache(maxsize=16)
def _matcher(pattern: str) -> re.Pattern[str]:
    """`*` and `?` stay within a folder, `**/` passes through any number of them."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(parts.get(part) or _literal(part) for part in _TOKENS.findall(pattern)))


def _literal(part: str) -> str:
    if len(part) > 2 and part.startswith("["):
        return "[^" + part[2:] if part[1] == "!" else part
    return re.escape(part)


def _common_folder(uris: Iterable[str]) -> str:
    """The longest folder that all have in common, with its slash; nothing of one on disk and one in a bucket."""
    folders = [uri.split("/")[:-1] for uri in uris]
    if not folders:
        return ""
    common = [same[0] for same in takewhile(lambda same: len(set(same)) == 1, zip(*folders, strict=False))]
    return "/".join(common) + "/" if len(common) > 2 else ""
