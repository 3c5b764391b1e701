"""Look at foreign weights without reading them: which files, which model, what has to be done to them. No torch.

What is found travels to the tasks that read the numbers; each verifies the files it opens against this look.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vitpipe.infra.errors import IntegrityError, StorageError, UsageError
from vitpipe.infra.storage.store import Digest
from vitpipe.stages.convert.config import ForeignFormat, ForeignSource
from vitpipe.stages.convert.containers.npz_file import open_npz
from vitpipe.stages.convert.containers.safetensors_file import open_safetensors
from vitpipe.stages.convert.foreign.located import Located, is_npz, locate, refuse_unopenable, states
from vitpipe.stages.convert.foreign.recognise import channels_of, recognise, refuse_channels
from vitpipe.stages.convert.foreign.wrapped import claimed, unwrapped
from vitpipe.stages.convert.formats.common import HALF, NPZ, Named, Pixels, format_of, readings
from vitpipe.stages.convert.formats.described import Described
from vitpipe.stages.convert.numbers import damaged
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.preparation import Preparation


@dataclass(frozen=True)
class ForeignWeights:
    """Foreign weights as they were looked at: a source of a conversion. Plain data, picklable."""

    source: ForeignSource
    located: Located
    digests: tuple[tuple[str, Digest], ...]
    """Of each file, by its name below the folder."""
    format: ForeignFormat
    settings: ModelSettings
    pixels: Pixels
    """How its images are normalised."""
    labels: tuple[str, ...]
    notes: tuple[str, ...]
    all_bf16: bool = False
    marks: tuple[tuple[str, int], ...] = ()
    """When each of its files was written (`stages.sighting`)."""
    is_overruled: bool = False
    """Whether the recipe asks for another function than the files beside the tensors say."""
    says_pixels: bool = False
    """Whether these files say how images are normalised, and the recipe says nothing else."""
    preparation: Preparation | None = None
    """How an image gets to the model's size, where they say it and it can be done here."""
    sigmoid: bool = False
    """Whether each class was learned by itself."""
    channels: int = 3
    """Of the images: 1 where its first layer is taken for grey ones."""

    @property
    def uri(self) -> str:
        """Where they lie, as the recipe says it."""
        return self.source.path

    @property
    def is_folded(self) -> bool:
        """Whether its images are others than ours in [-1, 1], so that the first layer has to change."""
        return self.pixels != HALF


def look(source: ForeignSource, scratch: Path) -> ForeignWeights:
    """Fetch what lies elsewhere to `scratch`, compute digests, and recognise the model.

    Errors: UsageError for what is missing, empty, a pickle or not a model of ours; IntegrityError for damaged files;
    StorageError when there is no room for the copy.
    """
    located = locate(source.path, scratch)
    _need_room(located, scratch)
    marks = tuple((name, mark) for name, (_, mark) in sorted(states(located.folder, located.names).items()))
    fetched = {name: located.fetch(name, scratch) for name in located.names}
    digests = tuple((name, digest) for name, (_, digest) in fetched.items())
    _compare_sha256(source, located, dict(digests))
    found = _foreign(source, located, {name: path for name, (path, _) in fetched.items()}, digests)
    return replace(found, marks=marks)


def glance(source: ForeignSource) -> ForeignWeights:
    """The same of a local source, reading only headers: no digests."""
    located = locate(source.path, Path("/nonexistent"))
    paths = {name: Path(located.folder, name) for name in located.names}
    return _foreign(source, located, paths, ())


def reopen(foreign: ForeignWeights, scratch: Path) -> tuple[Named, dict[str, Path]]:
    """The tensors that were looked at, and where all files lie, each verified again."""
    expected, located = dict(foreign.digests), foreign.located
    paths = {name: located.fetch(name, scratch, expected[name])[0] for name in located.names}
    return _named(foreign.source, located, paths), paths


def _foreign(
    source: ForeignSource, located: Located, paths: dict[str, Path], digests: tuple[tuple[str, Digest], ...]
) -> ForeignWeights:
    asked = f"convert the weights {source.path}"
    found = _named(source, located, paths)
    described = _described({name: paths[name] for name in located.companions}, asked)
    settings = recognise(found, described, source, asked)
    refuse_channels(found, settings, source, asked)
    pixels, assumed = _pixels(source, described, found.format, asked)
    if settings.family != "vit" and pixels != HALF:
        do = "its first convolution is standardised and cannot take it in: give config.source.mean and std of 0.5"
        raise UsageError(asked, f"its images are normalised by mean {pixels.mean} and std {pixels.std}", do)
    channels = channels_of(found)
    if channels == 1 and any(len(set(three)) > 1 for three in pixels):
        found_out = f"its images are grey, and normalised by the three numbers {pixels.mean} and {pixels.std}"
        raise UsageError(asked, found_out, "say the one of grey: config.source.mean and std, three times the same")
    overruled = _overruled(described, settings)
    labels, of_labels = _labels(described, settings.classes or 0)
    preparation, other_way = described.preparation(settings.image_px) if described.preparation else (None, "")
    return ForeignWeights(
        source,
        located,
        digests,
        found.format,
        settings,
        pixels,
        labels,
        notes=(
            *(*located.notes, *found.notes, *described.notes, *filter(None, [other_way])),
            *of_labels,
            *_notes(settings, pixels, assumed, overruled + _other_pixels(source, described), channels),
        ),
        all_bf16=found.arrays.all_bf16,
        is_overruled=bool(overruled),
        says_pixels=source.mean is None and described.mean is not None,
        preparation=preparation,
        sigmoid=described.sigmoid,
        channels=channels,
    )


def _notes(
    settings: ModelSettings, pixels: Pixels, assumed: bool, overruled: list[str], channels: int
) -> Iterator[str]:
    """What a person should know of how they are taken."""
    if not settings.classes:
        yield "it has no head: fine-tuning gives it one"
    if assumed:
        yield "nothing says how its images are normalised: taken as [-1, 1]; config.source.mean and std say else"
    if overruled:
        yield f"its config says {' and '.join(overruled)}, config.source overrules it"
    if pixels != HALF:
        yield f"its images are normalised by mean {pixels.mean} and std {pixels.std}: folded into the first layer"
    if channels == 1:
        yield "its images are grey: its first layer takes colours, weighed 0.299, 0.587 and 0.114"


def _labels(described: Described, classes: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names for all rows of a head, or none; and a note where the files beside it number or count them otherwise."""
    names, first = described.labels, described.first
    if first and names and len(names) == classes:
        return names, (f"its {classes} names are numbered from 1: the first is taken for the head's first row",)
    if first and names and len(names) == classes - 1:
        return ("LABEL_0", *names), ("no name is given for class 0: it is called LABEL_0",)
    if not classes or len(names) in (0, classes):
        return (names if classes else ()), ()
    return (), (f"the files beside it name {len(names)} classes, its head has {classes}: the names are left out",)


def _other_pixels(source: ForeignSource, described: Described) -> list[str]:
    """How the files beside the tensors normalise images, where the recipe wants another way."""
    said, wanted = (described.mean, described.std), (source.mean, source.std)
    return [f"mean {said[0]} and std {said[1]}"] if source.mean and described.mean and said != wanted else []


def _overruled(described: Described, settings: ModelSettings) -> list[str]:
    """What the files beside the tensors say of the function, where the recipe wants another."""
    gelu, norm_eps = described.gelu, described.norm_eps
    found = [f"gelu {gelu}"] if gelu not in (None, settings.gelu) else []
    return found + ([f"norm_eps {norm_eps:g}"] if norm_eps not in (None, settings.norm_eps) else [])


def _named(source: ForeignSource, located: Located, paths: dict[str, Path]) -> Named:
    tensors = [paths[name] for name in located.tensors]
    for path in tensors:
        refuse_unopenable(path)
    asked, index = f"convert the weights {source.path}", paths[located.index] if located.index else None
    whole = open_npz(tensors[0]) if is_npz(tensors[0].name) else open_safetensors(tensors, index)
    arrays, notes, is_unwrapped = unwrapped(whole, source, asked)
    if named := claimed(arrays, paths.keys(), asked):
        is_other = is_npz(tensors[0].name) != (format_of(named.format).file == NPZ)
        is_other = is_other or is_unwrapped or named.is_unwrapped
        return replace(named, notes=(*notes, *named.notes), is_unwrapped=is_other)
    shown = ", ".join(sorted(arrays.shapes)[:5]) or "none"
    found = f"no Vision Transformer's patch embedding among its {len(arrays.shapes)} tensors ({shown})"
    *first, last = readings()
    raise UsageError(asked, found, f"name a file of {', '.join(first)} or {last}")


def _described(files: Mapping[str, Path], asked: str) -> Described:
    """From the companions that there are, by name.

    Errors: IntegrityError for a damaged one; UsageError for a function that we do not have.
    """
    content = {name: _json(path) for name, path in files.items()}
    try:
        found = (reading.describe(content, asked) for reading in readings().values())
        return next((described for described in found if described), Described())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = str(error) if type(error) is ValueError else repr(error)
        do = "correct them, or fetch them again"
        raise IntegrityError(asked, f"the files beside it cannot be understood: {said}", do) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
        return content
    except (ValueError, RecursionError) as error:
        raise damaged(path, str(error)) from error


def _pixels(source: ForeignSource, described: Described, format: ForeignFormat, asked: str) -> tuple[Pixels, bool]:
    """How images are normalised, and whether that is only assumed: some libraries have models of several kinds.

    UsageError where a file says something that could be two things.
    """
    for said in (source, described):
        if said.mean is not None and said.std is not None:
            return Pixels(said.mean, said.std), False
    if described.unclear:
        do = "say what they become: config.source.mean and std, of pixels in [0, 1]"
        raise UsageError(asked, described.unclear, do)
    return format_of(format).pixels, not readings()[format].is_pixels_certain


def _compare_sha256(source: ForeignSource, located: Located, digests: dict[str, Digest]) -> None:
    there = [digests[name].sha256 for name in located.tensors]
    if source.sha256 is not None and there != [source.sha256]:
        found = f"config.source.sha256 is {source.sha256}, the tensors have {', '.join(there)}"
        raise IntegrityError(f"convert the weights {source.path}", found, "fetch the file again, or correct the digest")


def _need_room(located: Located, scratch: Path) -> None:
    """Before a copy begins: a disk that fills up on the way stops others too."""
    needed = located.bytes_elsewhere()
    scratch.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(scratch).free
    if free < needed:
        found = f"{needed / 1e9:.2f} GB have to be copied, {free / 1e9:.2f} GB are free below {scratch}"
        raise StorageError(f"fetch the weights {located.folder}", found, "make room")
