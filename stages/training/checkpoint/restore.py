"""Load a committed step into an engine of any world size and ZeRO stage, every file verified by the rank that reads it.

All ranks agree before any of them loads; a step with a damaged file is refused by all.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitpipe.infra.errors import IntegrityError, NotFound
from vitpipe.infra.storage.store import Store
from vitpipe.infra.work import Rank
from vitpipe.stages.contract import Events
from vitpipe.stages.training import agree
from vitpipe.stages.training.checkpoint.committed_steps import STATE, StepFile, StepManifest, StepPlace, committed
from vitpipe.stages.training.checkpoint.state_files import AVERAGE, LAYOUT, Layout, StateFiles
from vitpipe.stages.training.config import WEIGHT
from vitpipe.stages.training.engine import Engine


@dataclass(frozen=True)
class Resumed:
    """The committed step that training goes on from."""

    place: StepPlace
    manifest: StepManifest
    extra_files: dict[str, bytes]
    """On rank 0, the files that the step holds beside its state, the curve of all steps before among them."""


@dataclass(frozen=True)
class _Damage:
    file: str
    reason: str


@dataclass(frozen=True)
class Restore:
    """Loading, as one rank sees it. All ranks call every method together."""

    engine: Engine
    scratch: Path
    """A folder of this rank alone: ranks of one machine share its disk."""
    events: Events
    rank: Rank

    def newest(self, node: Store, attempts: Sequence[str]) -> Resumed | None:
        """Load the newest step of these attempts that is whole; None where none was ever committed.

        A step with a damaged file is refused by all, with an event, and the one before is tried. Errors, the same on
        all ranks: IntegrityError when steps were committed and none is whole; UsageError for a step of another schema;
        StorageError.
        """
        places = agree.on_first(lambda: committed(node, attempts, lost=True), self.rank.rank)
        for place in places:
            found = self._load(node, place)
            if isinstance(found, Resumed):
                return found
        if places:
            whole = f"none of the {len(places)} committed steps is whole; see the events checkpoint_refused"
            do = "restore the objects they name, or begin anew under another run name"
            raise IntegrityError(f"resume from the checkpoints under {node.uri}", whole, do)
        return None

    def exactly(self, node: Store, place: StepPlace) -> Resumed:
        """Load this very step. IntegrityError, the same on all ranks, when it is not whole."""
        found = self._load(node, place)
        if isinstance(found, Resumed):
            return found
        damages = "; ".join(f"{damage.file}: {damage.reason}" for damage in found)
        do = "restore the objects it names from a copy"
        raise IntegrityError(f"go on from {node.uri}/{place.folder}", damages, do)

    def _load(self, node: Store, place: StepPlace) -> Resumed | list[_Damage]:
        folder = self.scratch / "load" / f"step-{place.step}"
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted try left; absent is the rule
        (folder / STATE).mkdir(parents=True)
        try:
            read = agree.on_first(lambda: _manifest(node, place), self.rank.rank)
            found = [read] if isinstance(read, _Damage) else agree.each(lambda: self._fetch(node, place, read, folder))
            damages = list(dict.fromkeys(one for one in found if one is not None))
            if not damages and isinstance(read, StepManifest):
                self._take(StateFiles(folder / STATE))
                beside = [path for path in folder.iterdir() if path.is_file()]  # copied by rank 0 alone
                return Resumed(place, read, {path.name: path.read_bytes() for path in beside})
        finally:
            shutil.rmtree(folder)
        if self.rank.rank == 0:
            for damage in damages:
                text = f"attempt {place.attempt}, step {place.step}, file {damage.file}: {damage.reason}"
                self.events.emit("checkpoint_refused", text)
        return damages

    def _fetch(self, node: Store, place: StepPlace, manifest: StepManifest, folder: Path) -> _Damage | None:
        """Copy what this rank reads into `folder`, verified; the first file that is not what the manifest says."""
        listed = {file.path.removeprefix(f"{manifest.folder}/"): file for file in manifest.files}
        damage = _copy(node, place, listed, f"{STATE}/{LAYOUT}", folder)
        if damage is not None:
            return damage
        try:
            layout = Layout.parse((folder / STATE / LAYOUT).read_bytes(), LAYOUT)
        except IntegrityError as error:
            return _Damage(f"{STATE}/{LAYOUT}", error.in_brief)
        if not self._fits(layout):
            return _Damage(f"{STATE}/{LAYOUT}", "its parameters and moments are not those of this recipe")
        state = self.engine.state
        held, share = ([part.run for part in parts] for parts in (state.held, state.share))
        names = layout.needed(held, share, average=self.engine.average is not None)
        wanted = [f"{STATE}/{name}" for name in names]
        if self.rank.rank == 0:
            wanted += [name for name in listed if not name.startswith(f"{STATE}/")]
        damages = (_copy(node, place, listed, name, folder) for name in wanted)
        return next((damage for damage in damages if damage is not None), None)

    def _fits(self, layout: Layout) -> bool:
        state = self.engine.state
        mine = (state.shapes, self.engine.average is not None)
        same_moments = not state.held or state.moments == layout.moments
        return mine == (layout.shapes, layout.average) and same_moments

    def _take(self, files: StateFiles) -> None:
        state = self.engine.state
        for kind in (WEIGHT, *state.moments):
            for part, numbers in zip(state.held, state.numbers(kind, state.held), strict=True):
                files.copy(kind, part.name, part.start, numbers)
        if self.engine.average is not None:
            for part, kept in zip(state.share, self.engine.average.kept, strict=True):
                files.copy(AVERAGE, part.name, part.start, kept)
        state.loaded(files.layout.updates)


def _manifest(node: Store, place: StepPlace) -> StepManifest | _Damage:
    try:
        return place.read(node)
    except (IntegrityError, NotFound) as error:
        return _Damage("manifest.json", error.in_brief)


def _copy(node: Store, place: StepPlace, listed: dict[str, StepFile], name: str, folder: Path) -> _Damage | None:
    if name not in listed:
        return _Damage(name, "the manifest does not list it")
    try:
        node.download(f"{place.attempt}/{listed[name].path}", folder / name, expect=listed[name].digest)
    except (IntegrityError, NotFound) as error:
        return _Damage(name, str(error))
    return None
