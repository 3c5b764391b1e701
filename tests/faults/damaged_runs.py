"""A finished run, one file of it damaged, and all that its owner may type then: what is gone, and how each ended.

Everything in this process, as the command line would do it; the remedies that are printed are followed to the letter.
"""

import json
import random
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fake_clock import FakeClock
from tiny_stages import tiny_ways

from vitpipe.infra.errors import VitpipeError
from vitpipe.infra.storage.opening import open_store
from vitpipe.pipeline.drive.gc import gc
from vitpipe.pipeline.drive.runner import run
from vitpipe.pipeline.plan.decide import make_plan, refusal
from vitpipe.pipeline.plan.survey import survey
from vitpipe.pipeline.spec.load import PipelineSpec
from vitpipe.pipeline.store.retrieval import fault, verify

DAMAGES = ("flipped", "cut", "removed")
Specs = Callable[[Path], PipelineSpec]
"""The spec of the run whose store is `{folder}/runs`."""


def flipped(data: bytes, rng: random.Random) -> bytes:
    """One bit of it, anywhere."""
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@dataclass(frozen=True)
class Pristine:
    """A finished run as it should be."""

    folder: Path
    """Of `runs/{name}`."""
    named: frozenset[str]
    """Records and the files that they name, relative to the run."""
    kept: frozenset[str]
    """Those of them that only replaced records name."""
    headers: frozenset[str]
    """The `attempt.json` of attempts that records are of, which say the same."""

    @classmethod
    def of(cls, folder: Path) -> "Pristine":
        records = {path: json.loads(path.read_bytes()) for path in folder.rglob("record*.json")}
        named: dict[bool, set[str]] = {True: set(), False: set()}
        for path, record in records.items():
            files = (path, *(path.parent / file["at"] for file in record["files"]))
            named[path.name == "record.json"] |= {str(file.relative_to(folder)) for file in files}
        every = frozenset(named[True] | named[False])
        of = {
            str((path.parent / record["attempt"] / "attempt.json").relative_to(folder))
            for path, record in records.items()
        }
        return cls(folder, every, every - named[True], frozenset(of))


@dataclass(frozen=True)
class Case:
    """One damage to a copy of the run, on its way through the verbs."""

    pristine: Pristine
    spec: PipelineSpec
    path: str
    """The damaged file."""
    damage: str

    @property
    def run(self) -> Path:
        return Path(self.spec.uri.removeprefix("file://"))

    def begin(self, rng: random.Random) -> None:
        shutil.copytree(self.pristine.folder, self.run)
        file, data = self.run / self.path, (self.pristine.folder / self.path).read_bytes()
        if self.damage == "removed":
            file.unlink()
        else:
            file.write_bytes(flipped(data, rng) if self.damage == "flipped" else data[: len(data) // 2])

    def ends(self) -> Iterator[tuple[str, VitpipeError | None]]:
        """What each verb says, one after another, nothing that a record names being lost by any of them."""
        verbs: dict[str, Callable[[], VitpipeError | None]] = {
            "gc": lambda: self._gc(False),
            "gc --unfinished": lambda: self._gc(True),
            "plan": self._plan,
            "run": self.go,
        }
        for verb, do in verbs.items():
            error = do()
            self.nothing_is_lost(verb)
            yield verb, error

    def follow(self, told: Iterable[VitpipeError]) -> Iterator[str]:
        """Do all that the messages name, each from where it was said; what was done."""
        before = self.run.with_name("before")
        shutil.copytree(self.run, before)
        for done, do in self._remedies(told):
            do()
            self.nothing_is_lost(done)
            yield done
            shutil.rmtree(self.run)
            shutil.copytree(before, self.run)
        shutil.rmtree(before)

    def nothing_is_lost(self, after: str) -> None:
        """Every file that a record named is as it was, the damaged one as it was damaged."""
        for path in self.pristine.named:
            file = self.run / path
            places = [file, *file.parent.glob("record.*.json")] if file.name == "record.json" else [file]
            there = [one.read_bytes() for one in places if one.is_file()]
            whole = (self.pristine.folder / path).read_bytes() in there
            damaged = path == self.path and (there or self.damage == "removed")
            assert whole or damaged, f"{self.path} {self.damage}, then {after}: {path} is gone"

    def go(self, replacing: Sequence[str] = ()) -> VitpipeError | None:
        return _said(lambda: run(self.spec, replacing, tiny_ways(clock=FakeClock().clock)))

    def verify(self) -> VitpipeError | None:
        return fault(self.spec.uri, verify(self.spec.uri))

    def _gc(self, unfinished: bool) -> VitpipeError | None:
        before = files_of(self.run)
        error = _said(lambda: gc(self.spec.uri, unfinished, clock=FakeClock().clock))
        if error:
            gone = set(before) - set(files_of(self.run))
            assert not gone, f"gc ended with {error.code} and removed {gone}"
        return error

    def _plan(self) -> VitpipeError | None:
        def look() -> None:
            facts = survey(open_store(self.spec.uri), self.spec.graph)
            if error := refusal(make_plan(self.spec.graph, facts), self.spec.uri):
                raise error

        return _said(look)

    def _remedies(self, told: Iterable[VitpipeError]) -> Iterator[tuple[str, Callable[[], object]]]:
        text, pristine = "\n".join(map(str, told)), self.pristine.folder
        for names in set(re.findall(r"(?:--replace \S+ ?)+", text)):
            nodes = [word.strip("`.,;") for word in names.split() if word != "--replace"]
            yield f"run {names.strip()}", lambda nodes=nodes: self.go(nodes)
        for place in set(re.findall(r"[Rr]emove (?:file://)?(\S+) alone", text)):
            yield f"remove {place}", lambda place=place: Path(place).unlink()
        for place in set(re.findall(r"[Mm]ove (?:file://)?(\S+) out of the run", text)):
            yield f"move {place}", lambda place=place: shutil.move(place, self.run.with_name("moved"))
        if re.search(r"[Rr]estore", text):
            yield "restore", lambda: shutil.copy(pristine / self.path, self.run / self.path)


def _said(do: Callable[[], object]) -> VitpipeError | None:
    try:
        do()
    except VitpipeError as error:
        return error
    return None
