"""How a node's source now compares with what was taken from it, in words and counts for a plan. Knows no source."""

import hashlib
import os
from dataclasses import dataclass, replace

GONE = ": gone"
"""How the words about a file that is gone end."""
EXAMPLES = 3
"""Names that a difference gives."""
VERIFY = "`--verify-sources` compares digests"
HINTS = "logs/source/"
"""Where an attempt keeps what a look compares besides the artifact: times, which no artifact has."""
OF_SOURCE = "source: "
"""How a change of the source begins, among the others that make a node drift."""


@dataclass(frozen=True)
class Difference:
    """Differences between the files that are there now and those that were taken."""

    added: int = 0
    gone: int = 0
    changed: int = 0
    """Files with the same name and another size, or another digest where digests were compared."""
    touched: int = 0
    """Files with the same name and size, but written at another time: they may have other content."""
    examples: tuple[str, ...] = ()
    """Names of what was added, is gone or changed."""
    touched_examples: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    """What became of the files that say what these mean: `the labels file: gone`."""

    @property
    def differs(self) -> bool:
        """Whether it is other data; files that were only touched do not count."""
        return bool(self.counts or self.others)

    @property
    def counts(self) -> int:
        """How many files were added, are gone or changed."""
        return self.added + self.gone + self.changed

    def text(self, what: str) -> str:
        """`1 added, 2 gone, 0 changed of 24 images: 'a.png', 'b.png'`; `what` is `24 images`."""
        counted = f"{self.added} added, {self.gone} gone, {self.changed} changed of {what}"
        counted += f": {_some(self.examples, self.counts)}" if self.counts else ""
        return "; ".join((*self.others, counted))

    def hint(self, what: str) -> str:
        """Words about the files that were touched: `2 of 24 images have the size they had and another time: ...`."""
        named = _some(self.touched_examples, self.touched)
        return f"{self.touched} of {what} have the size they had and another time: {named}; {VERIFY}"


def _some(names: tuple[str, ...], count: int) -> str:
    return ", ".join(map(repr, names[:EXAMPLES])) + (", ..." if count > EXAMPLES else "")


@dataclass(frozen=True)
class Sighted:
    """What was found of one node's source. Without `changes`, what was committed is used."""

    changes: tuple[str, ...] = ()
    """How it is other data than was taken, each beginning with `source: `."""
    note: str = ""
    """What was found, or why the source could not be looked at."""
    is_loud: bool = False
    """Whether the note is shown when the pipeline is run, not only when it is planned."""
    is_same: bool = False
    """Whether all of the source was looked at and is what was taken: by names, sizes and times, or by digests."""
    by_digest: bool = False
    """Whether the changes show in digests alone: to replace a result by them, digests must be compared again."""
    is_moved: bool = False
    """Whether a name that was taken for fixed, a revision on the Hub, means something else now: no drift but damage."""

    @classmethod
    def other(cls, found: str, by_digest: bool = False) -> "Sighted":
        """The source holds other data now; `found` says how."""
        return cls((OF_SOURCE + found,), by_digest=by_digest)

    @classmethod
    def moved_on(cls, found: str) -> "Sighted":
        """A revision on the Hub is another commit now."""
        return cls((OF_SOURCE + found,), is_moved=True)

    def with_same_files(self) -> "Sighted":
        """The same, where what was taken is there unchanged: it is another name for equal data."""
        return replace(self, changes=tuple(f"{change}; no file that was taken differs" for change in self.changes))

    @classmethod
    def unseen(cls, why: str) -> "Sighted":
        """The source could not be looked at."""
        return cls(note=f"the source was not looked at: {why}; what was taken from it is used", is_loud=True)


def time_mark(state: os.stat_result) -> int:
    """A number of 63 bits that changes when a file is written again: nanoseconds of its last write; 0 if unknown."""
    return state.st_mtime_ns % 2**63  # a damaged file system has times of any size


def etag_mark(version: str | None) -> int:
    """A number of 63 bits that changes when an object is written again: the digest of its ETag; 0 if unknown."""
    digest = hashlib.sha256((version or "").encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1 if version else 0
