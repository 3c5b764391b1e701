"""Every failure a user can meet, as one small tree; each class is one exit code of the command line.

VitpipeError            1  a bug in vitpipe, when raised as itself
├── UsageError          2  bad usage or spec, a missing path, a foreign file that may not be opened
├── DriftError          3  the recipe differs from what is committed
├── StageError          4  a stage failed
│   └── Lost               ranks, tasks or Ray itself are gone; nothing was computed wrongly
├── LeaseLost           5  another driver holds the run
├── Stopped             6  stopped or preempted; resumable
├── StorageError        7  storage, credentials or network
│   ├── Refused            credentials or rights that the store turns away
│   ├── NotFound           no object under that name (usually caught by the caller)
│   ├── AlreadyExists      create-if-absent lost
│   └── Changed            swap-if-unchanged lost
└── IntegrityError      8  a digest, size or count does not match
"""

import re
import socket
from collections.abc import Sequence
from typing import Any, Self, TypeVar

Failure = TypeVar("Failure", bound=Exception)

_WORD = re.compile(r"^[A-Za-z][a-z]*(?:[-'][a-z]+)*[,;.!?]?(?!\S)")
"""A plain word that may change its capital; paths, URIs, quoted or dotted names and words before a colon stay."""


class VitpipeError(Exception):
    """Say what was asked, what was found and what to do about it.

    `asked` begins with a verb, `found` goes on after a colon, `do` is a sentence that begins with a verb or says more.
    Survives pickling (Ray carries errors between processes), so all state is in the three.
    """

    code = 1
    _opening = "Cannot"

    def __init__(self, asked: str, found: str = "", do: str = "") -> None:
        super().__init__(asked, found, do)
        self.asked, self.found, self.do = asked, found, do
        self.host = socket.gethostname()
        """The machine that it was first raised on; travels with it."""

    def __str__(self) -> str:
        """`Cannot ingest /x: no such folder. Correct root.`: what is found is never capitalised, it may be a name."""
        do = self.do.strip()
        sentences = (f"{self._opening} {self._clause()}", _WORD.sub(lambda word: _capital(word[0]), do))
        return " ".join(_ended(sentence) for sentence in sentences if sentence)

    @property
    def in_brief(self) -> str:
        """What another sentence quotes: `cannot read /x: it is damaged`, without a remedy and a full stop."""
        return f"{self._opening[0].lower()}{self._opening[1:]} {self._clause()}"

    def placed(self) -> Self:
        """Make the same error with the machine's name in what was found."""
        return type(self)(self.asked, f"{self.found.rstrip('.')} (on {self.host})".lstrip(), self.do)

    def _clause(self) -> str:
        asked = _WORD.sub(lambda word: f"{word[0][0].lower()}{word[0][1:]}", self.asked.strip())
        found = self.found.strip()
        return f"{asked.rstrip('.:')}: {found.rstrip('.') or found}" if found else asked.rstrip(".:")

    def to_json(self) -> dict[str, Any]:
        """The error as `--json` prints it."""
        return {"code": self.code, "asked": self.asked, "found": self.found, "do": self.do}


class UsageError(VitpipeError):
    """Wrong usage or spec, an unknown run or node, a named path that is missing, a file that may not be opened."""

    code = 2


class DriftError(VitpipeError):
    """The recipe, or its source's data, differs from what is committed."""

    code = 3


class StageError(VitpipeError):
    """A stage failed."""

    code = 4


class Lost(StageError):
    """Processes, machines or Ray itself were lost, and trying again did not help."""


class LeaseLost(VitpipeError):
    """Another driver holds the run."""

    code = 5


class Stopped(VitpipeError):
    """The work was asked to end; it can be resumed."""

    code = 6
    _opening = "Stopped before it could"


class StorageError(VitpipeError):
    """Storage, credentials, network, disk or cluster."""

    code = 7


class Refused(StorageError):
    """The store turns away who asks: wrong, expired or revoked credentials, missing rights, a clock that is off."""


class NotFound(StorageError):
    """No object of that name."""


class AlreadyExists(StorageError):
    """A conditional create found an object."""


class Changed(StorageError):
    """A conditional swap found another version."""


class IntegrityError(VitpipeError):
    """A digest, size or count does not match."""

    code = 8


def _capital(word: str) -> str:
    return f"{word[0].upper()}{word[1:]}"


def _ended(sentence: str) -> str:
    """With one full stop, or the mark that it has."""
    return sentence if sentence[-1] in ".!?" else f"{sentence}."


GRAVITY = (5, 8, 7, 6, 4)
"""With several failures the gravest cause decides the exit code, in this order."""


def gravest(errors: Sequence[Failure]) -> Failure:
    """Pick the error whose exit code the command ends with; before all others one that is a bug, no VitpipeError."""
    order = {code: rank for rank, code in enumerate(GRAVITY)}
    return min(errors, key=lambda error: order.get(error.code, -1) if isinstance(error, VitpipeError) else -2)
