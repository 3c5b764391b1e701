"""Checkpoints one can trust: saved by all ranks, committed by a manifest written last, verified before every load.

Knows the engine's two verbs and the attempt's folder; where the run stands in its recipe is the caller's.
"""

import re
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from infra.errors import IntegrityError, NotFound, StorageError, UsageError
from infra.work import Rank
from stages.artifacts import File
from stages.contract import Events, Out
from stages.training import agree
from stages.training.engine import STATE, Engine
from stages.training.steps import METRICS, Place, StepFile, StepManifest, committed

_OWNER = re.compile(r"zero_pp_rank_(\d+)_")
_UPLOADS = 4


@dataclass(frozen=True)
class Saved:
    """A committed step, and what it cost."""

    place: Place
    manifest: StepManifest
    stall_seconds: float
    commit_seconds: float


@dataclass(frozen=True)
class Resumed:
    """Where training goes on."""

    place: Place
    manifest: StepManifest
    beside: dict[str, bytes]
    """On rank 0, the files that the step holds beside its state, the curve of all steps before among them."""

    @property
    def metrics(self) -> bytes:
        return self.beside[METRICS]


@dataclass(frozen=True)
class _Damage:
    file: str
    reason: str


@dataclass(frozen=True)
class Checkpoints:
    """The steps of one node, as one rank sees them. All ranks call every method together."""

    engine: Engine
    out: Out
    scratch: Path
    """A folder of this rank alone: ranks of one machine share its disk."""
    events: Events
    rank: Rank

    def save(self, step: int, samples_seen: int, beside: Mapping[str, bytes | Path]) -> Saved:
        """Commit `step-{step}`: the state of all ranks, and rank 0's files `beside` (name -> content or local file).

        Returns once it is committed. Errors, the same on all ranks: LeaseLost, StorageError, IntegrityError.
        """
        start = time.monotonic()
        folder = self._local("save", step)
        _write(self.engine, folder)
        written = time.monotonic()
        extras = beside if self.rank.rank == 0 else {}
        lists = agree.each(lambda: self._upload(folder, step, extras))
        files = tuple(
            StepFile(path=file.path, bytes=file.bytes, sha256=file.sha256)
            for file in sorted((file for files in lists for file in files), key=lambda file: file.path)
        )
        settings, deal = self.engine.settings, self.engine.deal
        manifest = StepManifest(
            step=step, samples_seen=samples_seen, world_size=self.rank.world_size, zero=settings.zero,
            precision=settings.precision, micro_batch=deal.micro_batch, files=files,
        ).sealed()  # fmt: skip
        place = Place(attempt=self.out.attempt, step=step)
        agree.on_first(lambda: self._commit(place, manifest), self.rank.rank)
        shutil.rmtree(folder)
        return Saved(place, manifest, written - start, time.monotonic() - start)

    def resume(self) -> Resumed | None:
        """Load the newest step that is whole; None where none was ever committed.

        Looks through this attempt and the earlier ones of the same recipe. Each file is verified on every rank that
        reads it; a step with a damaged one is refused by all, with an event, and the one before is tried.
        Errors, the same on all ranks: IntegrityError when steps were committed and none is whole; UsageError when
        the newest whole one was made by other ranks; StorageError.
        """
        attempts = (self.out.attempt, *self.out.earlier)
        places = agree.on_first(lambda: committed(self.out.node, attempts), self.rank.rank)
        for place in places:
            resumed = self._load(place)
            if resumed is not None:
                return resumed
        if places:
            raise IntegrityError(
                f"resume from the checkpoints under {self.out.node.uri}",
                f"none of the {len(places)} committed steps is whole; see the events checkpoint_refused",
                "restore the objects they name, or begin anew under another run name",
            )
        return None

    def prune(self, keep: int) -> None:
        """Delete the steps of this recipe beyond the newest `keep`: first what makes them true, then their files."""
        if self.rank.rank == 0:
            for place in committed(self.out.node, (self.out.attempt, *self.out.earlier))[keep:]:
                self._delete(place)

    def _upload(self, folder: Path, step: int, extras: Mapping[str, bytes | Path]) -> list[File]:
        def put(name: str, content: bytes | Path) -> File:
            path = f"step-{step}/{name}"
            return self.out.put(path, content) if isinstance(content, bytes) else self.out.upload(content, path)

        contents: dict[str, bytes | Path] = {f"{STATE}/{path.name}": path for path in (folder / STATE).iterdir()}
        contents |= extras
        with ThreadPoolExecutor(_UPLOADS) as pool:
            return list(pool.map(put, contents.keys(), contents.values()))

    def _commit(self, place: Place, manifest: StepManifest) -> None:
        self.out.commit(f"{manifest.folder}/manifest.json", manifest.encoded())
        size = sum(file.bytes for file in manifest.files)
        text = f"step {manifest.step}: {len(manifest.files)} files, {size} bytes in {place.folder}"
        self.events.emit("checkpoint_committed", text)

    def _load(self, place: Place) -> Resumed | None:
        folder = self._local("load", place.step)
        read = agree.on_first(lambda: self._manifest(place), self.rank.rank)
        if isinstance(read, StepManifest):
            self._fits(read)
            damages = [one for one in agree.each(lambda: self._fetch(place, read, folder)) if one is not None]
            if not damages:
                self.engine.load(folder)
                beside = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
                shutil.rmtree(folder)
                return Resumed(place, read, beside if self.rank.rank == 0 else {})
        else:
            damages = [read]
        shutil.rmtree(folder, ignore_errors=True)  # other ranks may have fetched nothing
        if self.rank.rank == 0:
            for damage in dict.fromkeys(damages):
                text = f"attempt {place.attempt}, step {place.step}, file {damage.file}: {damage.reason}"
                self.events.emit("checkpoint_refused", text)
        return None

    def _manifest(self, place: Place) -> StepManifest | _Damage:
        try:
            return place.read(self.out.node)
        except (IntegrityError, NotFound) as error:
            return _Damage("manifest.json", str(error))

    def _fetch(self, place: Place, manifest: StepManifest, folder: Path) -> _Damage | None:
        """Copy what this rank reads into `folder`, verified; the first file that is not what the manifest says."""
        for file in manifest.files:
            name = file.path.removeprefix(f"{manifest.folder}/")
            if not self._reads(name):
                continue
            local = folder / name
            local.parent.mkdir(parents=True, exist_ok=True)
            try:
                self.out.node.download(f"{place.attempt}/{file.path}", local, expect=file.digest)
            except (IntegrityError, NotFound) as error:
                return _Damage(name, str(error))
        return None

    def _reads(self, name: str) -> bool:
        """Whether this rank reads a file of a step: rank 0 what is shared, every rank what DeepSpeed gave it."""
        owner = _OWNER.search(name)
        if owner:
            return int(owner[1]) == self.rank.rank
        return self.rank.rank == 0 or name.startswith(f"{STATE}/")

    def _fits(self, manifest: StepManifest) -> None:
        mine = (self.rank.world_size, self.engine.settings.zero)
        if (manifest.world_size, manifest.zero) != mine:
            raise UsageError(
                f"resume with workers {mine[0]}, zero {mine[1]}",
                f"step {manifest.step} was saved with workers {manifest.world_size}, zero {manifest.zero}",
                "set resources.workers and resources.zero back to these",
            )

    def _delete(self, place: Place) -> None:
        manifest = f"{place.folder}/manifest.json"
        paths = [entry.path for entry in self.out.node.list(f"{place.folder}/")]
        for path in (manifest, *(path for path in paths if path != manifest)):
            self.out.fence.check()
            self.out.node.delete(path)

    def _local(self, use: str, step: int) -> Path:
        folder = self.scratch / use / f"step-{step}"
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted try left; absent is the rule
        folder.mkdir(parents=True)
        return folder


def _write(engine: Engine, folder: Path) -> None:
    try:
        engine.save(folder)
    except OSError as error:
        raise StorageError(f"write a checkpoint to {folder}", str(error), "free space on the scratch disk") from error
    except RuntimeError as error:
        if "PytorchStreamWriter" not in str(error):  # a lost peer, which a restart heals
            raise
        raise StorageError(f"write a checkpoint to {folder}", str(error), "free space on the scratch disk") from error
