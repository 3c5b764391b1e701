"""Writers of one file in a folder, moved on one system call at a time, paused, killed, shown old listings.

A thread for each; its calls through `os` wait for their turn, so every interleaving can be played and played again.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from vitpipe.infra.storage import chain, folders, generations

STEPS = frozenset({"open", "write", "fsync", "link", "rename", "unlink", "listdir", "mkdir", "rmdir", "stat"})
CHANGES = frozenset({"open", "link", "rename", "unlink"})


class Killed(SystemExit):
    """The process is gone: nothing of it runs any more, no `finally` either, as each needs a call."""


@dataclass
class World:
    """What the writers share, as an onlooker sees it who misses nothing."""

    linked: dict[int, bytes] = field(default_factory=dict)
    """Every generation that there ever was."""
    views: list[list[str]] = field(default_factory=list)
    """The folder's listings since the beginning."""

    @property
    def top(self) -> int:
        return max(self.linked, default=0)

    def link(self, number: int, data: bytes) -> None:
        assert number == self.top + 1, f"generation {number} was linked after {self.top}"
        self.linked[number] = data


class Actor(threading.Thread):
    """One process that does `act`, and ends at its call `die_at` (from 1), before it or `die_after` it."""

    def __init__(
        self, world: World, act: Callable[["Actor"], None], die_at: int = 0, die_after: bool = False,
        age: int = 0, lost: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(daemon=True)
        self.world, self.act, self.die_at, self.die_after = world, act, die_at, die_after
        self.age = age
        """Changes by others that its listings do not show yet, unless it made one itself since."""
        self.lost = lost
        """The generation whose link is answered as a lost answer is: it exists already."""
        self.made, self.coming, self.ended = 0, "", False
        """Calls so far, the one that it waits to make, and whether there are none to come."""
        self._seen = 0
        self._dead = False
        self._failure: BaseException | None = None
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self.start()

    def run(self) -> None:
        self._go.acquire()
        try:
            self.act(self)
        except Killed:
            pass  # ended as it was asked to: no failure of what is tested
        except BaseException as error:
            self._failure = error
        self.ended = True
        self._stopped.release()

    def step(self) -> None:
        """Let it make the call that it waits for; return when it waits for the next."""
        if not self.ended:
            self._go.release()
            self._stopped.acquire()
        if self._failure:
            raise self._failure

    def until(self, name: str) -> None:
        """Stop it just before its next call of that name."""
        self.step()
        while not self.ended and self.coming != name:
            self.step()

    def finish(self) -> None:
        while not self.ended:
            self.step()

    def meet(self, name: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._dead:
            raise Killed
        self.coming = name
        self._stopped.release()
        self._go.acquire()
        self.made += 1
        self._dead = self.made == self.die_at
        if self._dead and not self.die_after:
            raise Killed
        answer = self._carry_out(name, call, *args, **kwargs)
        if self._dead:
            raise Killed
        return answer

    def _carry_out(self, name: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if name == "listdir":
            self.world.views.append(call(*args))
            self._seen = max(self._seen, len(self.world.views) - 1 - self.age)
            return list(self.world.views[self._seen])
        data = _bytes(args[0], kwargs["src_dir_fd"]) if name == "link" else b""
        answer = call(*args, **kwargs)
        folder = kwargs.get("dir_fd") or kwargs.get("src_dir_fd")
        if name in CHANGES and folder is not None and (name != "open" or args[1] & os.O_CREAT):
            self.world.views.append(os.listdir(folder))
            self._seen = len(self.world.views) - 1
        if name == "link":
            self.world.link(int(args[1]), data)
            if self.world.top == self.lost:
                raise FileExistsError("it was made already")
        return answer


def _bytes(name: str, folder: int) -> bytes:
    with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=folder), "rb") as file:
        return file.read()


class _Calls:
    """Stands in the place of `os` in the modules under test."""

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        actor = threading.current_thread()
        if name == "fsync":
            real = _quick
        if name not in STEPS or not isinstance(actor, Actor):
            return real
        return lambda *args, **kwargs: actor.meet(name, real, *args, **kwargs)


def _quick(handle: int) -> None:
    """Processes die here, not machines."""


@contextmanager
def stepping(keep: int = chain.KEEP) -> Iterator[World]:
    """Let every call of the generations' modules wait for its turn where an `Actor` makes it."""
    with ExitStack() as patched:
        for module in (chain, folders, generations):
            patched.enter_context(mock.patch.object(module, "os", _Calls()))
        patched.enter_context(mock.patch.object(chain, "KEEP", keep))
        patched.enter_context(mock.patch.object(chain, "_PAUSE_S", 0))
        yield World()
