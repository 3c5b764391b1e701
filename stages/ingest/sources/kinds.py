"""The kinds of sources, each from its own file: a new one is named here, and nowhere else."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args

from pydantic import Field

from vitpipe.stages.ingest.sources.benchmark import BenchmarkSource
from vitpipe.stages.ingest.sources.class_tars import ClassTarsSource
from vitpipe.stages.ingest.sources.digits import DigitsSource
from vitpipe.stages.ingest.sources.folder import FolderSource
from vitpipe.stages.ingest.sources.glyphs import GlyphsSource
from vitpipe.stages.ingest.sources.parquet import ParquetSource
from vitpipe.stages.ingest.sources.source_settings import SourceSettings
from vitpipe.stages.ingest.sources.webdataset import WebdatasetSource

# A list: for its items mypy tells which one lacks a part that every source declares.
KINDS: list[type[SourceSettings]] = [
    FolderSource,
    WebdatasetSource,
    ParquetSource,
    ClassTarsSource,
    BenchmarkSource,
    DigitsSource,
    GlyphsSource,
]

if TYPE_CHECKING:
    AnySource = SourceSettings
else:
    AnySource = Annotated[Union[tuple(KINDS)], Field(discriminator="kind")]  # noqa: UP007  # of a list


def ingest_defaults(kind: Any) -> Mapping[str, Any]:
    """The fields of an ingest that have another default for a source of this kind; none for an unknown one."""
    return next((one.ingest_defaults for one in KINDS if kind in get_args(one.model_fields["kind"].annotation)), {})
