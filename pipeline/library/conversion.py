"""Weights in other libraries' formats as a function: the stage `convert` itself, its proof included, called here."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vitpipe.infra.errors import NotFound, UsageError
from vitpipe.infra.storage.landing import digest_file
from vitpipe.pipeline.library.doors import cpus, doors, notes_of
from vitpipe.pipeline.library.few_shot import wrong_fields
from vitpipe.pipeline.library.models import lend
from vitpipe.pipeline.spec.places import absolute_place, absolute_uri
from vitpipe.pipeline.store.records import RECORD
from vitpipe.stages.artifacts import Artifact, Checkpoint, File
from vitpipe.stages.contract import Inputs
from vitpipe.stages.convert.config import ConvertConfig, ConvertResources
from vitpipe.stages.convert.run import run
from vitpipe.stages.record import load_artifact


@dataclass(frozen=True, repr=False)
class Converted:
    """A folder of written weights, one folder below it for each format. It stands for its path wherever one is taken.

    `vitpipe.load` opens it where `native` is among the formats.
    """

    folder: Path
    formats: tuple[str, ...]
    parity: Mapping[str, Mapping[str, Any]]
    """Of each format, and of foreign weights as `source`: what `parity.json` says of its proof."""
    notes: tuple[str, ...]
    """What was recognised in foreign weights, and what had to be assumed."""

    def __fspath__(self) -> str:
        """The folder."""
        return str(self.folder)

    def __repr__(self) -> str:
        """A line for each format, with how it was proved."""
        return "\n".join([*self.notes, *(f"{self.folder / name}: {_said(self.parity[name])}" for name in self.formats)])


def convert(
    source: Any,
    to: str | Iterable[str] = "native",
    folder: str | Path = "",
    *,
    dtype: str = "fp32",
    use: str = "params",
    license: str | None = None,
    **foreign: Any,
) -> Converted:
    """Write weights in one format or several into `folder`, each read back and proved by the library it is for.

    `source` is a checkpoint, weights or Score of a run (its node's folder or URI), a loaded model as it is now, or a
    foreign file or folder; `foreign` fields say of a foreign one what it does not say itself: `format`, `gelu`,
    `norm_eps`, `mean`, `std`, ... Formats, `dtype` (fp32, bf16, fp16), `use` (params, ema) and `license` are those of
    the stage `convert`.

    Files that stand in the folder are kept if they are the same. Errors: UsageError for a source, field or format that
    does not fit, and for another file that stands in the way; StageError when a written file is not the source.
    """
    formats = (to,) if isinstance(to, str) else tuple(to)
    asked = f"convert to {', '.join(formats)}"
    if not str(folder):
        raise UsageError(asked, "no folder to write to is given", 'give one: `folder="weights"`')
    target = Path(folder).expanduser().absolute()
    with tempfile.TemporaryDirectory(prefix="vitpipe-convert-") as scratch:
        given = _given(source, Path(scratch) / "model")
        if given is not None and foreign:
            found = f"{', '.join(foreign)} is said of weights that say it themselves"
            raise UsageError(asked, found, "leave it out: such fields are for foreign files")
        path = None if given is not None else {"path": _path(source), **foreign}
        try:
            config = ConvertConfig.model_validate(
                {"source": path, "formats": formats, "dtype": dtype, "use": use, "license": license}
            )
        except ValidationError as error:
            raise wrong_fields(asked, error) from error
        ctx = doors(Path(scratch), "convert", ConvertResources(cpus_per_task=cpus()))
        done = run(config, _inputs(given), ctx)
        _place(done.files, Path(scratch) / "store/convert", target, asked)
        return Converted(target, done.formats, json.loads((target / "parity.json").read_bytes()), notes_of(ctx))


def _given(source: Any, scratch: Path) -> Artifact | None:
    """The artifact that a source is, or a model lent as one; None for a foreign file or folder."""
    if not isinstance(source, str | os.PathLike):
        return lend(source, scratch)
    text = os.fspath(source)
    try:
        uri = absolute_uri(text if "://" in text else f"file://{Path(text).expanduser()}", Path.cwd())
    except ValueError:
        return None  # the look at foreign weights says what is wrong
    if uri.startswith("file://") and not (Path(uri.removeprefix("file://")) / RECORD).is_file():
        return None
    try:
        return load_artifact(uri)
    except NotFound:
        return None


def _path(source: Any) -> str:
    """A local place of foreign weights as an absolute path; an address as it is."""
    return absolute_place(os.fspath(source).removeprefix("file://"), Path.cwd())


def _inputs(given: Artifact | None) -> Inputs:
    if given is None:
        return Inputs({})
    return Inputs({"checkpoint" if isinstance(given, Checkpoint) else "weights": (given,)})


def _place(files: Sequence[File], node: Path, target: Path, asked: str) -> None:
    """Move what was written to where it is wanted. UsageError, before anything is moved, for another file there."""
    moves = [(node / file.at, target / file.path, file) for file in files]
    other = [str(there) for _, there, file in moves if there.exists() and digest_file(there) != file.digest]
    if other:
        listed = ", ".join(other[:3]) + (f" and {len(other) - 3} more" if len(other) > 3 else "")
        raise UsageError(asked, f"other files stand in the way: {listed}", "give a new folder, or move those away")
    for here, there, _ in moves:
        if not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            landing = there.with_name(there.name + ".part")
            shutil.copyfile(here, landing)
            landing.replace(there)


def _said(proof: Mapping[str, Any]) -> str:
    if "max_abs_difference" in proof:
        return f"logits differ by at most {proof['max_abs_difference']:.2g} in {proof['library']}"
    return proof.get("round_trip") or f"unchecked: {proof.get('unchecked', '')}"
