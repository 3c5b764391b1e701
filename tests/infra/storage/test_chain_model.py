"""Any interleaving of writers and readers of one file, with deaths at any call and old listings: one line of values."""

import errno
import functools
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stepping import Actor, World, stepping

from vitpipe.infra.storage import chain, generations
from vitpipe.infra.storage.chain import Chain, ChainState
from vitpipe.infra.storage.local import LocalStore

Act = Callable[[Actor], None]


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # processes die here, not machines
    (tmp_path / "lease.json").write_bytes(b"first")
    return tmp_path / "lease.json"


def writer(where: Path, who: str, swaps: int) -> Act:
    """Swap so often, whatever the others do. What is confirmed took effect there and then; what is refused, never."""

    def act(actor: Actor) -> None:
        for count in range(swaps):
            while True:
                before, data = Chain(where).read(), os.urandom(8) + f"{who} {count}".encode()
                version = Chain(where).swap(data, before.version)
                linked = actor.world.linked
                if version is None:
                    unheard = linked.get(actor.lost)  # and perhaps gone again, when it was looked for
                    assert data == unheard or data not in linked.values(), "refused, and yet it was done"
                    continue
                number = int(version.partition("-")[0])
                assert version == ChainState(number, data).version and linked[number] == data
                assert linked[number - 1] == before.data, "it replaced what it had not read"
                break

    return act


def reader(where: Path, looks: int) -> Act:
    """What is read was written, and is no older than what an old listing excuses."""

    def act(actor: Actor) -> None:
        for _ in range(looks):
            linked, behind = actor.world.linked, actor.world.top - actor.age
            state = Chain(where).read()
            found = [number for number, data in linked.items() if data == state.data]
            assert found or (state.data == b"first" and not linked)
            assert not found or found[0] >= behind - 1

    return act


def mender(where: Path, looks: int) -> Act:
    def act(actor: Actor) -> None:
        for _ in range(looks):
            LocalStore(where.parent).read_version(where.name)

    return act


def settled(where: Path, world: World) -> None:
    """After everybody has ended or died: the truth is the last that was linked; two more swaps, and nothing is left."""
    state = Chain(where).read()
    assert state.data == world.linked.get(world.top, b"first")
    for data in (b"last but one", b"last"):
        assert Chain(where).swap(data, Chain(where).read().version)
    assert where.read_bytes() == b"last" == Chain(where).read().data
    names = os.listdir(where.parent / ".vitpipe-lock-lease.json")
    assert all(name.isdecimal() for name in names) and max(map(int, names)) == max(world.top, 1) + 2
    assert len(names) <= chain.KEEP


TURNS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 70)), max_size=40)
DEATHS = st.tuples(*[st.one_of(st.just(0), st.integers(1, 100))] * 3)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(TURNS, DEATHS, st.tuples(*[st.booleans()] * 3), st.tuples(*[st.integers(0, 12)] * 4), st.integers(0, 9),
       st.integers(1, 4), st.sampled_from([reader, mender]))  # fmt: skip
def test_every_interleaving(tmp_path_factory, turns, deaths, after, ages, lost, keep, other):
    where = tmp_path_factory.mktemp("chain", numbered=True) / "lease.json"
    where.write_bytes(b"first")
    with stepping(keep) as world:
        actors = [
            Actor(world, writer(where, who, 3), deaths[number], after[number], ages[number], lost)
            for number, who in enumerate("abc")
        ]
        actors.append(Actor(world, other(where, 12), age=ages[3]))
        for who, steps in turns:
            for _ in range(steps):
                actors[who].step()
        for actor in actors:
            actor.finish()
        settled(where, world)


def dying(world: World, act: Callable[[], object], after: bool) -> Callable[[int], bool]:
    """Do it in a process that dies at a call; whether it lived to do it all."""

    def die_at(call: int) -> bool:
        actor = Actor(world, lambda actor: act(), call, after)
        actor.finish()
        return actor.made < call

    return die_at


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("begun", ["plain", "lock", "chain"])
def test_a_death_at_every_call_of_a_swap(where, begun, after):
    """From a file of an earlier version, with or without its lock file, and in the middle of a life."""
    store = LocalStore(where.parent)
    for call in itertools.count(1):
        store.delete(where.name)
        where.write_bytes(b"first")
        if begun == "lock":
            where.with_name(".vitpipe-lock-lease.json").write_bytes(b"")
        if begun == "chain":
            assert Chain(where).swap(b"second", Chain(where).read().version)
        before = Chain(where).read()
        with stepping() as world:
            world.linked |= {1: b"first", 2: b"second"} if begun == "chain" else {}
            swap = functools.partial(Chain(where).swap, b"new", before.version)
            lived = dying(world, swap, after)(call)
            linked = b"new" in world.linked.values()
        found = Chain(where).read()
        assert found.data == (b"new" if linked else before.data)
        assert store.read_version(where.name)[0] == found.data == where.read_bytes(), "people see it too"
        assert Chain(where).swap(b"next", before.version) is None or not linked
        settled(where, World({Chain(where).read().generation: Chain(where).read().data}))
        if lived:
            break
    assert call > 15 and linked


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_death_at_every_call_of_a_deletion(where, after):
    store = LocalStore(where.parent)
    for call in itertools.count(1):
        where.write_bytes(b"first")
        assert Chain(where).swap(b"second", Chain(where).read().version)
        with stepping() as world:
            lived = dying(world, Chain(where).delete, after)(call)
        if where.exists():
            assert Chain(where).read().data == b"second"
            Chain(where).delete()
        else:
            with pytest.raises(FileNotFoundError):
                Chain(where).read()
        store.create(where.name, b"anew")
        assert Chain(where).read().data == b"anew"
        settled(where, World({Chain(where).read().generation: b"anew"}))
        store.delete(where.name)
        if lived:
            break
    assert call > 4


def overtaken(where: Path) -> str | None:
    """The answer to a writer that stood still just before its link while another swapped until its number was gone."""
    versions: list[str | None] = []
    with stepping(keep=1) as world:
        slow = Actor(world, lambda actor: versions.append(Chain(where).swap(b"slow", Chain(where).read().version)))
        while not (slow.coming == "link" and world.linked):
            slow.step()
        quick = Actor(world, writer(where, "quick", 4))
        quick.finish()
        slow.finish()
    return versions[0]


def test_who_slept_before_its_link_has_lost(where):
    assert overtaken(where) is None
    assert b"quick" in Chain(where).read().data


def test_without_the_revocation_the_model_sees_a_generation_linked_twice(where, monkeypatch):
    """The negative control: nobody takes a loser's file away."""
    monkeypatch.setattr(chain, "_revoke", lambda *_: None)
    with pytest.raises(AssertionError, match="generation 2 was linked after 5"):
        overtaken(where)


def test_who_slept_before_its_rename_shows_nothing_old(where):
    with stepping() as world:
        slow = Actor(world, writer(where, "slow", 1))
        slow.until("rename")
        quick = Actor(world, writer(where, "quick", 2))
        quick.finish()
        shown = where.read_bytes()
        slow.finish()
    assert where.read_bytes() == shown == Chain(where).read().data and b"quick" in shown


@pytest.mark.parametrize("how", ["in place", "renamed"])
def test_what_a_person_writes_counts(where, how):
    """A lease whose holder is set to null by hand, a record that is restored from a copy."""
    old = Chain(where).read().version
    version = Chain(where).swap(b"second", old)
    if how == "in place":
        where.write_bytes(b"by hand")
    else:
        (where.parent / "new").write_bytes(b"by hand")
        (where.parent / "new").rename(where)
    state = Chain(where).read()
    assert state.data == b"by hand" and Chain(where).swap(b"third", version) is None
    assert Chain(where).swap(b"third", state.version)
    where.write_bytes(b"first")  # a value of long ago is not taken for a swap that is not shown yet
    assert Chain(where).read().data == b"first"
    where.unlink()
    with pytest.raises(FileNotFoundError):
        Chain(where).read()


@pytest.mark.parametrize("hidden", [True, False])
def test_a_copied_folder_goes_on(where, tmp_path, hidden):
    for data in (b"second", b"third"):
        assert Chain(where).swap(data, Chain(where).read().version)
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(where, copy)
    if hidden:
        shutil.copytree(where.with_name(".vitpipe-lock-lease.json"), copy / ".vitpipe-lock-lease.json")
    there = Chain(copy / where.name)
    assert there.read().data == b"third"
    assert there.swap(b"fourth", there.read().version) and (copy / where.name).read_bytes() == b"fourth"


def test_an_earlier_version_swaps_nothing_any_more(where):
    """Its lock file cannot be opened: it is told so, rather than write past our generations."""
    assert Chain(where).swap(b"second", Chain(where).read().version)
    with pytest.raises(IsADirectoryError):
        where.with_name(".vitpipe-lock-lease.json").open("a+b")


def test_on_a_full_disk_old_generations_make_room(where, monkeypatch):
    """A store that is full can still be told that the run is given up."""
    for number in range(5):
        assert Chain(where).swap(b"%d" % number, Chain(where).read().version)
    full, real = [True], (os.write, os.unlink)

    def write(handle, data):
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real[0](handle, data)

    def unlink(name, **kwargs):
        real[1](name, **kwargs)
        full[0] = full[0] and not str(name).isdecimal()

    monkeypatch.setattr(generations.os, "write", write)
    monkeypatch.setattr(generations.os, "unlink", unlink)
    state = Chain(where).read()
    assert Chain(where).swap(b"given back", state.version) and where.read_bytes() == b"given back"
    full[0] = True
    with pytest.raises(OSError, match="No space"):
        Chain(where).swap(b"more", Chain(where).read().version)
    assert Chain(where).read().data == b"given back" and len(os.listdir(Chain(where).folder)) == 2


def test_a_removed_file_of_another_machine_is_absent(where, monkeypatch):
    assert Chain(where).swap(b"second", Chain(where).read().version)
    real, stale = os.open, iter([True])

    def opened(name, *args, **kwargs):
        if str(name).isdecimal() and next(stale, False):
            raise OSError(116, "Stale file handle", name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(generations.os, "open", opened)
    assert Chain(where).read().data == b"second"
