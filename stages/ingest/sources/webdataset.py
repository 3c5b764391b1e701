"""Plain tars of WebDataset samples, local or on S3: `tar_samples.py` lists and reads them. No torch."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from vitpipe.stages.ingest.sources.file_list import FilesSource

if TYPE_CHECKING:  # as in `source_settings.py`
    from vitpipe.stages.ingest.sources.class_names import Classes
    from vitpipe.stages.ingest.sources.patterns import SourceFile
    from vitpipe.stages.ingest.sources.tar_samples import TarSamples


class WebdatasetSource(FilesSource):
    """Plain tars of WebDataset samples: members of one name before the first dot belong together."""

    suffix: ClassVar[str] = ".tar"

    kind: Literal["webdataset"]
    image: str = Field(default="jpg;jpeg;png;webp", min_length=1)
    """Extensions of the member that is the image; the first that a sample has counts."""
    label: str = Field(default="cls;json", min_length=1)
    """Extensions of the member that says the class: `cls` a number, or a name where no other `cls` of the tar is a
    number; `json` a field; any other (`txt`) a name."""
    label_field: str | None = None
    """Field of a json member, `outer.inner` for one within another: one class or a list of them. Left out, `labels`,
    `label` or `cls`, whichever is there."""

    def open_files(self, files: "tuple[SourceFile, ...]", fixed: "Classes | None") -> "TarSamples":
        """The samples of these tars."""
        from vitpipe.stages.ingest.sources.tar_samples import TarSamples

        return TarSamples(files, fixed, self.patterns, self.image, self.label, self.label_field)
