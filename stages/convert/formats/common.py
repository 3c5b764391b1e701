"""What a format of weights is, and what several of them share. One file a format stands beside this one, whose `FORMAT`
says all of it; `stages.convert.config.Format` lists their names. No torch: the pass that writes weights reads this.
"""

import importlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from vitpipe.stages.convert.config import Dtype, ForeignFormat, Format
from vitpipe.stages.convert.formats.described import Described, Triple
from vitpipe.stages.convert.formats.landmarks import Landmarks
from vitpipe.stages.convert.links import Link
from vitpipe.stages.convert.numbers import Arrays
from vitpipe.stages.model_settings import ModelSettings
from vitpipe.stages.preparation import Preparation

SAFETENSORS, NPZ, ONNX = "model.safetensors", "model.npz", "model.onnx"
"""What files of tensors are called, by their containers."""
LinksOf = Callable[[ModelSettings], list[Link]]


class Pixels(NamedTuple):
    """What images are reduced by and then divided by, of pixels in [0, 1]."""

    mean: Triple
    std: Triple


HALF = Pixels((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Images in [-1, 1], as native weights take them."""
IMAGENET = Pixels((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""timm.data.constants; torchvision.transforms._presets.ImageClassification."""


@dataclass(frozen=True)
class About:
    """What is said of the weights beside their numbers."""

    settings: ModelSettings
    labels: tuple[str, ...] = ()
    """Class names in the order of the head's rows; empty where the source has none."""
    license: str | None = None
    lineage: Mapping[str, str] = field(default_factory=dict)
    dtype: Dtype = "fp32"
    sigmoid: bool = False
    """Whether probabilities are the sigmoid of each logit, instead of the softmax of all."""
    preparation: Preparation = Preparation()  # noqa: RUF009  # frozen
    """How an image gets to the model's size: squashed, as our fine-tuning tests by default, where nobody says else."""

    @property
    def activation(self) -> str:
        """What makes probabilities of logits."""
        return "sigmoid" if self.sigmoid else "softmax"

    def id2label(self) -> dict[str, str]:
        """The labels as one entry of a file's header; none where there are none."""
        return {"id2label": text({str(row): label for row, label in enumerate(self.labels)})} if self.labels else {}

    def signed(self, said: Mapping[str, str]) -> dict[str, str]:
        """A file's header with licence and lineage behind it, where they are known."""
        license = {"license": self.license} if self.license else {}
        return {**said, **license, **({"lineage": text(self.lineage)} if self.lineage else {})}


@dataclass(frozen=True)
class Named:
    """A file's tensors under the names that its format has for them today."""

    format: ForeignFormat
    arrays: Arrays
    notes: tuple[str, ...] = ()
    """What was left out, or taken in another form than it stands in the file."""
    is_unwrapped: bool = False
    """Whether its library knows the file by other names, without some of its tensors, or in another container."""
    dialect: "Dialect | None" = None
    """The family whose files these are, where it is not the format's own: `arrays` then have our names."""
    theirs: Arrays | None = None
    """The tensors as the library of such a family names them."""

    @property
    def reading(self) -> "Reading":
        """How the tensors are understood."""
        if self.dialect is not None:
            return self.dialect.reading
        reading = format_of(self.format).reading
        assert reading is not None
        return reading

    @property
    def consumer(self) -> str | None:
        """Where the function is that asks the library that the file is from."""
        return format_of(self.format).consumer if self.dialect is None else self.dialect.consumer


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How somebody else's file of a format is recognised and understood."""

    claim: Callable[[Arrays, Collection[str], str], Named | None]
    """Gives the tensors by today's names where they are this format's, else None, from the tensors, the names of the
    files beside them, and what is asked (the opening of an error)."""
    links: LinksOf
    """As a file may stand there, which can be more than is written."""
    landmarks: Landmarks
    gelu: Literal["tanh", "erf"]
    """Where nothing says it."""
    norm_eps: float
    """Likewise."""
    untabled: tuple[Literal["sincos2d", "none"], ...]
    """Kinds of positions that its library's models have without a table in the file; another kind cannot be meant."""
    is_pixels_certain: bool
    """Whether all models of the format take images as `pixels` says; else it is assumed, and that is noted."""
    companions: tuple[str, ...]
    """Files beside the tensors that say more of the model."""
    describe: Callable[[Mapping[str, Any], str], Described | None]
    """Facts from these files' JSON, by name, where it is this format's, else None."""


@dataclass(frozen=True)
class Dialect:
    """A family of models whose files a format's library has beside its own."""

    reading: Reading
    consumer: str
    """A dotted path, as a format's."""


@dataclass(frozen=True, kw_only=True)
class WeightsFormat:
    """One format, both ways. No part has a default: one that is forgotten is an error of mypy."""

    name: Format
    file: str
    """Name of its file of tensors; by its ending that of its container."""
    contents: LinksOf | str
    """Links of tensors by name, each written as soon as the native ones it is made of have been read; or of a graph of
    the whole model where the function is that takes a WriteTask and gives the files: a dotted path, for it imports
    torch."""
    limits: Callable[[ModelSettings], list[str]]
    """What of a model it cannot hold, in words; empty where it holds all."""
    unsaid: Callable[[ModelSettings], str | None]
    """What a reader of the file has to be told, because the format has no place to say it."""
    header: Callable[[About], dict[str, str]]
    """What the file itself says of the weights."""
    companions: Callable[[About], dict[str, bytes]]
    """The small files beside it, by name."""
    pixels: Pixels
    """How its users normalise images."""
    consumer: str | None
    """Where the function is that asks a library for its answers (`stages.convert.consumers`): a dotted path, for it
    imports torch. None where the file is only read back."""
    reading: Reading | None
    """None where such files are not taken in."""

    @property
    def links(self) -> LinksOf | None:
        """How its tensors and native ones are made of each other; None of a graph, which has none by name."""
        return None if isinstance(self.contents, str) else self.contents


def format_of(name: Format) -> WeightsFormat:
    """The format of a name; imported when it is asked for, so that a config is read without NumPy."""
    found: WeightsFormat = importlib.import_module(f"{__package__}.{name}").FORMAT
    return found


def readings() -> dict[ForeignFormat, Reading]:
    """All formats that are taken in, in the order they are listed."""
    names: tuple[ForeignFormat, ...] = get_args(ForeignFormat)
    return {name: reading for name in names if (reading := format_of(name).reading)}


def load(path: str) -> Callable[..., Any]:
    """The function that a dotted path names, `module:function`."""
    module, _, name = path.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def renamed(arrays: Arrays, real: Mapping[str, str]) -> Arrays:
    """Some of the arrays by other names; `real` gives their own."""
    shapes = {name: arrays.shapes[old] for name, old in real.items()}
    return Arrays(shapes, lambda name, layer=None: arrays.read(real[name], layer), arrays.all_bf16, arrays.counters)


def architecture(settings: ModelSettings) -> str:
    """The paper's name of the variant, or its sizes in words."""
    variant = settings.variant
    return variant if isinstance(variant, str) else ", ".join(f"{key} {value}" for key, value in variant)


def json_bytes(content: Mapping[str, Any], indent: int = 1) -> bytes:
    """JSON as a file of its own."""
    return (json.dumps(content, indent=indent, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def text(content: Mapping[str, Any]) -> str:
    """JSON on one line."""
    return json.dumps(content, ensure_ascii=False).encode(errors="backslashreplace").decode()


def relative_positions(settings: ModelSettings) -> list[str]:
    """The limit of a format that knows positions as a table alone."""
    return ["relative positions"] if settings.position == "relative" else []


def other_pooling(settings: ModelSettings) -> list[str]:
    """The limit of a format that classifies the class token."""
    return [] if settings.pool == "cls" else [f"pooling by {settings.pool}: it classifies the class token"]


def headless(settings: ModelSettings) -> list[str]:
    """The limit of a format of classifiers."""
    return ["an encoder without a head (classes 0)"] if settings.classes == 0 else []


def other_epsilon(settings: ModelSettings, own: float) -> list[str]:
    """The limit of a format whose library sets the epsilon itself."""
    return [] if settings.norm_eps == own else [f"norm_eps {settings.norm_eps:g} (its own is {own:g})"]


def only_plain(settings: ModelSettings, consumer: str) -> str:
    """Why a library's plain ViT cannot hold a hybrid or a ResNet."""
    return f"the {settings.family} {name_of(settings)}: {consumer} is a plain ViT"


def later_parts(settings: ModelSettings) -> list[str]:
    """The limit of a format whose models have none of the later parts."""
    parts = [
        f"{name} {text(value) if isinstance(value, dict) else value}" for name, value in settings.later_parts.items()
    ]
    parts += ["the quick GELU"] if settings.gelu == "quick" else []
    return [f"{', '.join(parts)}: its model has no such parts (timm's has most)"] if parts else []


def name_of(settings: ModelSettings) -> str:
    """The variant in the words of a limit."""
    return settings.variant if isinstance(settings.variant, str) else "an encoder of explicit sizes"
