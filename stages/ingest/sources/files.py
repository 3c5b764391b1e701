"""What every source takes, and the sources that are lists of files: tars and parquet. No torch."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from vitpipe.stages.bounds import AnySeed, Few, Images
from vitpipe.stages.settings import Place, Settings


class Subset(Settings):
    """A random part of the source, the same one for the same seed."""

    fraction: float = Field(gt=0, le=1)
    """Share of the images to keep; larger fractions contain smaller ones."""
    seed: AnySeed = 0
    """Which part."""


class SourceSettings(Settings):
    """What every source takes."""

    limit: Images | None = None
    """Keep at most this many images, drawn by hash from the whole source; smaller limits lie inside larger ones."""
    subset: Subset | None = None
    """Keep a random share of the images."""


def _frozen(urls: Any) -> Any:
    """Where a whole config was read from JSON by an outer validator, its lists are lists by now."""
    return tuple(urls) if isinstance(urls, list) else urls


SEPARATOR = "::"
"""Between patterns in one text, as webdataset has it."""


def _several(urls: str | tuple[str, ...]) -> tuple[str, ...]:
    patterns = tuple(part for url in ((urls,) if isinstance(urls, str) else urls) for part in url.split(SEPARATOR))
    if not patterns or not all(patterns):
        raise ValueError("`urls` names nothing")
    for url in patterns:
        scheme, separator, _ = url.partition("://")
        if url.lower().startswith("pipe:") or (separator and scheme not in ("file", "s3")):
            raise ValueError(f"{url!r} is neither a local path nor s3://bucket/...; nothing else is opened")
    return patterns


Urls = Annotated[str | tuple[str, ...], BeforeValidator(_frozen), AfterValidator(_several), Place(SEPARATOR)]


class FilesSource(SourceSettings):
    """A source that is a list of files, its classes found in them."""

    urls: Urls
    """One pattern or several, in a list or joined by `::`: names, braces as webdataset has them
    (`{train,val}-{000000..000099}.tar`), globs, or folders; local or `s3://`. Names of local files are part of the
    recipe, their folder is not."""
    classes: Few | None = None
    """Number of classes; a number of this or above is a bad label. Left out, the classes are those that occur."""
    class_names: Annotated[str | None, Place()] = None
    """A file of all class names, one a line or a JSON list; numbers are places in it, and names that the data bring
    with them are looked up in it."""

    @property
    def patterns(self) -> tuple[str, ...]:
        """`urls` as a list, even of one."""
        return (self.urls,) if isinstance(self.urls, str) else self.urls

    @model_validator(mode="after")
    def _classes_are_said_once(self) -> Self:
        if self.classes is not None and self.class_names is not None:
            raise ValueError("give classes or class_names, not both: the file says how many there are")
        return self


class WebdatasetSource(FilesSource):
    """Plain tars of WebDataset samples: members of one name before the first dot belong together."""

    kind: Literal["webdataset"]
    image: str = Field(default="jpg;jpeg;png;webp", min_length=1)
    """Extensions of the member that is the image; the first that a sample has counts."""
    label: str = Field(default="cls;json", min_length=1)
    """Extensions of the member that says the class: `cls` a number, `json` a field, any other (`txt`) a name."""
    label_field: str | None = None
    """Field of a json member: one class or a list of them. Left out, `labels`, `label` or `cls`, whichever is there."""


class ParquetSource(FilesSource):
    """Parquet files in the layout of Hugging Face image data sets."""

    kind: Literal["parquet"]
    image: str = "image"
    """Column of the images: encoded bytes, or a struct with a field `bytes`."""
    label: str = "label"
    """Column of the classes: a number, a name, or a list of either. A number is what the ClassLabel in its own
    file's schema calls it; files are united by these names."""
