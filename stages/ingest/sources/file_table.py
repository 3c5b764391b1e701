"""Many files of a source in few bytes: each of a hundred thousand tasks is sent them all. No torch."""

from array import array
from collections.abc import Iterable, Sequence
from typing import overload

from vitpipe.stages.ingest.sources.patterns import SourceFile
from vitpipe.stages.ingest.table import Texts


class FileTable(Sequence[SourceFile]):
    """Files as columns, numbered in their order; each is made when it is asked for."""

    def __init__(self, files: Iterable[SourceFile] = ()) -> None:
        self._names, self._paths, self._versions = Texts(), Texts(), Texts()
        folders: dict[str, int] = {}
        self._of, self._sizes, self._starts = array("I"), array("q"), array("q")
        for file in files:
            self._names.append(file.name)
            self._paths.append(file.path)
            self._versions.append("" if file.version is None else file.version)
            self._of.append(folders.setdefault(file.folder, len(folders)))
            self._sizes.append(file.size)
            self._starts.append(file.start)
        self._in_order = tuple(folders)

    def __len__(self) -> int:
        return len(self._of)

    @overload
    def __getitem__(self, place: int) -> SourceFile: ...

    @overload
    def __getitem__(self, place: slice) -> list[SourceFile]: ...

    def __getitem__(self, place: int | slice) -> SourceFile | list[SourceFile]:
        rows = range(len(self))[place]
        return self._row(rows) if isinstance(rows, int) else [self._row(row) for row in rows]

    def _row(self, row: int) -> SourceFile:
        version, folder = self._versions[row] or None, self._in_order[self._of[row]]
        place = (self._names[row], folder, self._paths[row])
        return SourceFile(row, *place, self._sizes[row], version, self._starts[row])
