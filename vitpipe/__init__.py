"""The library: `import vitpipe`. What stands here is promised, where it lies is not. It is imported when first used.

`pipeline`, `stages` and `infra` beside this file are links to the repository's folders; installed, they are folders.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitpipe.infra.errors import VitpipeError as VitpipeError
    from vitpipe.pipeline.library.conversion import convert as convert
    from vitpipe.pipeline.library.few_shot import fewshot as fewshot
    from vitpipe.pipeline.library.models import load as load
    from vitpipe.pipeline.library.models import predict as predict
    from vitpipe.pipeline.library.runs import read_run as read_run
    from vitpipe.stages.images.iterable import ShardStream as ShardStream

    __version__: str
_HOMES = {
    "ShardStream": "vitpipe.stages.images.iterable",
    "VitpipeError": "vitpipe.infra.errors",
    "convert": "vitpipe.pipeline.library.conversion",
    "fewshot": "vitpipe.pipeline.library.few_shot",
    "load": "vitpipe.pipeline.library.models",
    "predict": "vitpipe.pipeline.library.models",
    "read_run": "vitpipe.pipeline.library.runs",
}
__all__ = ["ShardStream", "VitpipeError", "__version__", "convert", "fewshot", "load", "predict", "read_run"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata  # 20 ms that `vitpipe --help` need not spend

        return metadata.version("vitpipe")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), "__version__", *_HOMES]
