"""Plain tars of WebDataset samples, local or on S3: `tar_samples.py` lists and reads them. No torch."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from vitpipe.stages.ingest.sources.file_list import FilesSource, frozen

if TYPE_CHECKING:  # as in `source_settings.py`
    from vitpipe.stages.ingest.sources.class_names import Classes
    from vitpipe.stages.ingest.sources.patterns import SourceFile
    from vitpipe.stages.ingest.sources.tar_samples import TarSamples


Extension = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,31}$")]
"""Of a member, in lower case, as it stands behind the first dot of a name."""


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
    keep: Annotated[tuple[Extension, ...], BeforeValidator(frozen)] = ()
    """Extensions of other members, such as captions (`[txt, json]`), that pass through into the shards as they are,
    beside the image and its class. A sample may lack them."""

    @field_validator("keep")
    @classmethod
    def _each_once(cls, keep: tuple[str, ...]) -> tuple[str, ...]:
        if twice := sorted({name for name in keep if keep.count(name) > 1}):
            raise ValueError(f"keep names {twice[0]!r} more than once")
        if images := sorted({*keep} & {"jpg", "jpeg", "png", "webp"}):
            raise ValueError(f"keep names {images[0]!r}: a reader of the shards would take it for the image")
        return keep

    @model_validator(mode="after")
    def _kept_is_no_label(self) -> Self:
        labels = ["cls", *(self.label.lower().split(";") if not self.unlabelled else ())]
        clash = [name for name in self.keep if name in labels]
        if clash:
            found = f"keep names {clash[0]!r}, which says the class: shards have a class of their own under that name"
            raise ValueError(f"{found}. Name the label's member alone with `label`, or set `labels: none`")
        return self

    def open_files(self, files: "tuple[SourceFile, ...]", fixed: "Classes | None") -> "TarSamples":
        """The samples of these tars."""
        from vitpipe.stages.ingest.sources.tar_samples import TarSamples

        form = (self.image, self.label, self.label_field)
        return TarSamples(files, fixed, self.patterns, *form, not self.unlabelled, self.keep)
