"""Load a committed step into an engine of any world size and ZeRO stage, every file verified by whoever fetches it.

The ranks of a machine fetch one copy of what they read, each a part, and map it. All ranks agree before any of them
loads; a step with a damaged file is refused by all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vitpipe.infra.errors import IntegrityError, NotFound
from vitpipe.infra.storage.store import Store
from vitpipe.infra.work import Rank
from vitpipe.stages.contract import Events
from vitpipe.stages.training import agree
from vitpipe.stages.training.checkpoint.committed_steps import STATE, StepFile, StepManifest, StepPlace, committed
from vitpipe.stages.training.checkpoint.one_copy import SharedFolder, shared_folder
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
    """A folder of this rank alone, beside those of the other ranks of its machine."""
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
        with shared_folder(self.scratch.parent, self.rank.rank) as shared:
            read = agree.on_first(lambda: _manifest(node, place), self.rank.rank)
            damages = self._fetch(node, place, read, shared) if isinstance(read, StepManifest) else [read]
            if not damages and isinstance(read, StepManifest):
                self._take(StateFiles(shared.folder / STATE))
                beside = [path for path in shared.folder.iterdir() if path.is_file()] if self.rank.rank == 0 else []
                return Resumed(place, read, {path.name: path.read_bytes() for path in beside})
        if self.rank.rank == 0:
            for damage in damages:
                text = f"attempt {place.attempt}, step {place.step}, file {damage.file}: {damage.reason}"
                self.events.emit("checkpoint_refused", text)
        return damages

    def _fetch(self, node: Store, place: StepPlace, manifest: StepManifest, shared: SharedFolder) -> list[_Damage]:
        """Copy what the ranks of this machine read into their folder, once and verified; all that is damaged."""
        listed = {file.path.removeprefix(f"{manifest.folder}/"): file for file in manifest.files}
        copied = partial(_copy, node, place, listed, shared.folder)
        found = agree.each(lambda: copied(f"{STATE}/{LAYOUT}") if shared.is_first else None)
        if not any(found):
            wanted = agree.each(lambda: self._wanted(shared.folder))
            found = [one for one in wanted if isinstance(one, _Damage)]
            if not found:
                names = [one for one in wanted if not isinstance(one, _Damage)]
                mine = shared.part(names, {name: file.bytes for name, file in listed.items()})
                if self.rank.rank == 0:
                    mine += [name for name in listed if not name.startswith(f"{STATE}/")]
                found = agree.each(lambda: next(filter(None, map(copied, mine)), None))
        return list(dict.fromkeys(one for one in found if one is not None))

    def _wanted(self, folder: Path) -> list[str] | _Damage:
        """The files that this rank reads of a step whose layout is in `folder`."""
        try:
            layout = Layout.parse((folder / STATE / LAYOUT).read_bytes(), LAYOUT)
        except IntegrityError as error:
            return _Damage(f"{STATE}/{LAYOUT}", error.in_brief)
        if not self._fits(layout):
            return _Damage(f"{STATE}/{LAYOUT}", "its parameters and moments are not those of this recipe")
        state = self.engine.state
        held, share = ([part.run for part in parts] for parts in (state.held, state.share))
        return [f"{STATE}/{name}" for name in layout.needed(held, share, average=self.engine.average is not None)]

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


def _copy(node: Store, place: StepPlace, listed: dict[str, StepFile], folder: Path, name: str) -> _Damage | None:
    if name not in listed:
        return _Damage(name, "the manifest does not list it")
    try:
        node.download(f"{place.attempt}/{listed[name].path}", folder / name, expect=listed[name].digest)
    except (IntegrityError, NotFound) as error:
        return _Damage(name, str(error))
    return None
