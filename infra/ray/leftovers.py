"""Remove what killed drivers left in the temporary folder: Ray's sessions, and what Ray wrote outside of them.

A killed driver removes nothing. So each notes who it is before it starts a Ray of its own, and then which folder that
Ray made. Only what such a note names is removed, and only if the note's writer is provably dead: its machine, pid
namespace, pid and start time are known. What belongs to another user, program or machine is never looked at.
"""

import json
import logging
import os
import re
import secrets
import shutil
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

from vitpipe.infra.lease_state import Holder

MARK = "driver.json"
_SESSION = re.compile(r"session_[\d_-]+_(?P<pid>\d+)")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DriverFolder:
    """A folder with a short name, of this driver alone, for what its Ray writes outside of its session."""

    path: Path
    who: Holder

    def names(self, session: str) -> None:
        """Note the session that Ray made for this driver."""
        new = self.path / f"{MARK}.new"
        new.write_text(json.dumps({"who": asdict(self.who), "session": session}))
        os.replace(new, self.path / MARK)


def driver_folder() -> DriverFolder:
    """Make this driver's folder. Its note is in it before it has its final name."""
    home = _home()
    home.mkdir(parents=True, exist_ok=True)
    who = Holder.me()
    made = DriverFolder(home / f".new-{secrets.token_hex(4)}", who)
    made.path.mkdir(mode=0o700)
    made.names("")
    named = DriverFolder(home / f".d{who.pid}-{secrets.token_hex(2)}", who)
    made.path.rename(named.path)
    return named


def sweep() -> list[Path]:
    """Remove what dead drivers of this user left; the removed paths. Never fails: it is a courtesy."""
    removed: list[Path] = []
    for folder in sorted(_home().glob(".d*-*")):
        try:
            removed += _swept(folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s is left as it is: %s", folder, error)
    return removed


def _swept(folder: Path) -> list[Path]:
    if not _ours(_home()) or not _ours(folder) or not (folder / MARK).is_file():
        return []
    fields = json.loads((folder / MARK).read_text())
    who = Holder(**fields["who"])
    session = Path(fields["session"]) if fields["session"] else None
    if not who.provably_dead() or (session and _is_used(session)):
        return []
    going = [folder]
    if session and _ours(session) and _is_session(session, who):
        going.insert(0, session)  # its note goes last
    for one in going:
        shutil.rmtree(one, ignore_errors=True)
    log.info("removed what the dead %s left: %s", who, ", ".join(map(str, going)))
    return going


def _home() -> Path:
    """A folder beside the sessions: where names of Ray's sockets are short enough, names in it are too."""
    root = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"  # as Ray chooses
    return Path(root) / f"vitpipe-{os.getuid()}"


def _ours(folder: Path) -> bool:
    """Whether it is a real folder of this user: in a shared temporary folder anyone may make a link of any name."""
    try:
        facts = folder.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid()


def _is_session(folder: Path, who: Holder) -> bool:
    """Whether Ray named the folder after the driver that noted it."""
    match = _SESSION.fullmatch(folder.name)
    return folder.parent.name == "ray" and match is not None and int(match["pid"]) == who.pid


def _is_used(session: Path) -> bool:
    """Whether a process of that Ray still runs; its own programs are told their session on their command line."""
    wanted = str(session).encode()
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if wanted in process.read_bytes():
                return True
        except OSError:
            continue  # it ended meanwhile
    return False
