"""Tars of one class each, as ImageNet-21k is shipped: `class_tar_images.py` lists and reads them. No torch."""

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from vitpipe.stages.ingest.sources.file_list import FilesSource
from vitpipe.stages.ingest.sources.source_settings import SourceCount, Splits

if TYPE_CHECKING:  # as in `source_settings.py`
    from vitpipe.stages.contract import StageContext
    from vitpipe.stages.ingest.sources.class_names import Classes
    from vitpipe.stages.ingest.sources.class_tar_images import ClassTars
    from vitpipe.stages.ingest.sources.patterns import SourceFile


class ClassTarsSource(FilesSource):
    """One tar a class, the class is the tar's name: `n01440764.tar`. In a folder, in a bucket, or all in one tar.

    `urls` may name such tars or the tar that holds them; the tar of a tree of class folders, too. A packed one
    (`.tar.gz`) is read once and unpacked into the store, beside the shards, where `vitpipe gc` frees it afterwards.
    With `splits: folders` the folder above a class is its split, and `imagenet21k_train`, `imagenet21k_val` and
    `imagenet21k_small_classes`, as the processed ImageNet-21k has them, are train, val and small-classes; `official`
    takes no others.
    """

    suffix: ClassVar[str] = ".tar;.tar.gz;.tgz"

    kind: Literal["class_tars"]

    def check_splits(self, splits: Splits) -> None:
        """All are meant: folders of splits may hold the tars, or stand in them."""

    def open(self, splits: Splits) -> "ClassTars":
        """The tars that are there now. UsageError for a packed one, which has to be unpacked first; as `open_files`."""
        from vitpipe.stages.ingest.sources.patterns import find_files

        return self._by_split(self.open_files(find_files(self.patterns, self.suffix), self._fixed_classes()), splits)

    def open_files(self, files: "tuple[SourceFile, ...]", fixed: "Classes | None") -> "ClassTars":
        """The tars of one class in these files. IntegrityError for a tar of tars that is not whole."""
        from vitpipe.stages.ingest.sources.class_tar_images import ClassTars
        from vitpipe.stages.ingest.sources.tar_contents import class_tars_in

        parts, in_tree = class_tars_in(files)
        return ClassTars(parts, fixed, self.patterns, files, in_tree)

    def make_ready(self, splits: Splits, ctx: "StageContext") -> "ClassTars":
        """As `open`, with packed files unpacked into the store."""
        from vitpipe.stages.ingest.sources.patterns import find_files
        from vitpipe.stages.ingest.sources.tar_contents import PACKED
        from vitpipe.stages.ingest.sources.unpacked_tars import unpacked_tars

        files = find_files(self.patterns, self.suffix)
        if not any(file.name.lower().endswith(PACKED) for file in files):
            return self.open(splits)
        return self._by_split(unpacked_tars(files, self._fixed_classes(), self.patterns, ctx), splits)

    def _by_split(self, opened: "ClassTars", splits: Splits) -> "ClassTars":
        by_split = isinstance(splits, str)
        return replace(opened, by_split=by_split, official=splits == "official", labelled=not self.unlabelled)

    def count(self, splits: Splits) -> SourceCount | str:
        """All tars by their headers where that is quick, else reckoned from the first of them; classes by name."""
        from vitpipe.stages.ingest.listing import some
        from vitpipe.stages.ingest.sources.class_tar_images import ClassTars
        from vitpipe.stages.ingest.sources.file_table import FileTable
        from vitpipe.stages.ingest.sources.patterns import find_files
        from vitpipe.stages.ingest.sources.tar_contents import PACKED
        from vitpipe.stages.ingest.sources.tar_sample import listed_count, packed_sample, plain_sample

        if self.is_elsewhere:
            return f"counted when {some(self.patterns)} are listed"
        files = find_files(self.patterns, self.suffix)
        if any(file.name.lower().endswith(PACKED) for file in files):
            given = ClassTars(FileTable(files), self._fixed_classes(), self.patterns, files)
            return packed_sample(self._by_split(given, splits))
        opened = self.open(splits)
        return listed_count(opened) or plain_sample(opened)

    def whole_digests(self) -> dict[str, str]:
        """Each file is read whole: what is unpacked once is not unpacked again to be compared."""
        from vitpipe.stages.ingest.sources.file_stream import PackedFile

        found = {}
        for file in self._files_there():
            packed = PackedFile(file)
            for _ in packed.raw():
                pass
            found[file.name] = packed.sha256
        return found
