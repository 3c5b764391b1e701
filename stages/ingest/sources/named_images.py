"""Images that a table only names: files beside it, or wherever an absolute path says. No torch.

Nothing is fetched from the web, and no relative path leads out of the table's own folder.
"""

import errno
import posixpath
from pathlib import Path

from vitpipe.infra.errors import NotFound, StorageError, UsageError
from vitpipe.stages.images.decode import MAX_FILE_BYTES
from vitpipe.stages.images.header import BadImage
from vitpipe.stages.ingest.sources.patterns import SourceFile
from vitpipe.stages.ingest.sources.window import store_of

SHOWN = 200
"""Characters of a path in a message."""


def named_image(table: SourceFile, path: str) -> bytes:
    """The bytes of the file that a row of `table` names. BadImage where it is not there or leads elsewhere.

    StorageError where the disk or the server fails.
    """
    folder, name = _place(table, path)
    try:
        if not folder.startswith("file://"):
            return store_of(folder).read(name)
        file = Path(folder.removeprefix("file://"), name)
        if (size := file.stat().st_size) > MAX_FILE_BYTES:
            raise BadImage(f"a file of {size} bytes is over the cap of {MAX_FILE_BYTES}")
        return file.read_bytes()
    except (NotFound, FileNotFoundError, NotADirectoryError) as error:
        raise _only(path, f"and no such file is in {folder}") from error
    except (PermissionError, IsADirectoryError) as error:
        raise _only(path, f"which cannot be read: {error.strerror}") from error
    except (UsageError, ValueError) as error:  # no name that a file can have
        raise _only(path, "which is no name of a file") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise _only(path, "which is no name of a file") from error
        raise StorageError(f"read {folder}/{name}", str(error), "check the disk, then run again") from error


def _place(table: SourceFile, path: str) -> tuple[str, str]:
    """The folder and the name in it."""
    scheme, separator, rest = path.partition("://")
    if separator and scheme == "s3":
        folder, _, name = path.rpartition("/")
        return folder, name
    if separator and scheme != "file":
        raise _only(path, "and nothing is fetched from there")
    plain = posixpath.normpath(rest if separator else path)
    if plain.startswith("/"):
        if not table.is_local:
            raise _only(path, "which is not of the bucket that the table is in")
        return f"file://{posixpath.dirname(plain)}", posixpath.basename(plain)
    if plain.startswith(".."):
        raise _only(path, "which leads out of the folder of the table")
    return table.folder, plain


def _only(path: str, why: str) -> BadImage:
    shown = path if len(path) <= SHOWN else f"{path[:SHOWN]}..."
    return BadImage(f"the row has no bytes, only the path {shown!r}, {why}")
