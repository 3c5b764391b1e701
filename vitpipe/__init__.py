"""The library: `import vitpipe`. What stands here is promised, where it lies is not. It is imported when first used."""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitpipe.stages.images.iterable import ShardStream as ShardStream

__version__ = metadata.version("vitpipe")
_HOMES = {"ShardStream": "vitpipe.stages.images.iterable"}
__all__ = ["ShardStream", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
