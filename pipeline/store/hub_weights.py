"""Native weights of a repository on the Hugging Face Hub, brought to this machine's cache, each commit's apart."""

import os
from collections.abc import Callable
from pathlib import Path

from vitpipe.infra.errors import UsageError
from vitpipe.infra.storage.hub_names import hub_place
from vitpipe.infra.storage.opening import open_store

NEEDED = ("model.safetensors", "model.json")
BESIDE = ("labels.json", "preparation.json")
_NATIVE = "native"


def weights_on_hub(text: str, tell: Callable[[str], None]) -> Path:
    """Fetch what `hf://owner/name[@revision][/path]` has of native weights: the folder here that holds them.

    They stand there, or in a folder `native` below, as `artifacts push` leaves them. `tell` hears of a download.
    Errors: UsageError for no such repository, or one without them; StorageError; IntegrityError for damage on the way.
    """
    try:
        place = hub_place(text)
    except ValueError as error:
        raise UsageError("find the weights", str(error), "correct it") from None
    parts = place.path.split("/") if place.path else []
    folder = "/".join(parts[:-1] if parts[-1:] == [_NATIVE] else parts)
    store = open_store(f"{place.root}/{folder}".rstrip("/"))
    there = {entry.path: entry.bytes for entry in store.list()}
    prefix = next((one for one in (f"{_NATIVE}/", "") if all(one + name in there for name in NEEDED)), None)
    if prefix is None:
        shown = ", ".join(sorted(path for path in there if "/" not in path)[:8]) or "nothing"
        do = "bring other formats in with a `convert` node's `source: {path: hf://...}`, or with `vitpipe.convert`"
        raise UsageError(f"predict with {text}", f"no native weights stand there, but {shown}", do)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vitpipe" / "hub"
    local = cache / store.uri.removeprefix("hf://")
    wanted = [prefix + name for name in NEEDED] + [name for name in BESIDE if name in there]
    if missing := [path for path in wanted if not (local / path).is_file()]:
        tell(f"fetching {sum(there[path] for path in missing):,} bytes of {store.uri} to {local}")
    for path in wanted:
        store.download(path, local / path)
    return local / prefix if prefix else local
