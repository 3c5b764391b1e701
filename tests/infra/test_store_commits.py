"""Any order of commits, by any writers, with crashes, lost answers and duplicates: the store is what a model says."""

import uuid
from typing import Any

import pytest
from faults.faulty_store import Crash, Fate, FaultyStore
from faults.s3_proxy import Proxy, s3_proxy
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from vitpipe.infra.errors import AlreadyExists, Changed, NotFound
from vitpipe.infra.storage.opening import open_store
from vitpipe.infra.storage.store import Store

PATHS = st.sampled_from(["lease.json", "node/record.json"])
WRITERS = st.sampled_from("abc")


class Commits(RuleBasedStateMachine):
    """Writers that remember the version they saw last, against a dictionary. Contents never come twice."""

    store: Store
    faults = ("",)

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, bytes] = {}
        self.seen: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.count = 0
        self.here = self.store.child(uuid.uuid4().hex)

    def content(self, who: str) -> bytes:
        self.count += 1
        return f"{who} {self.count}".encode()

    def attempt(self, verb: str, fault: int, *args: Any) -> str | None:
        """One call under a fault: its version, or None when the writer died and does not know."""
        return getattr(self.here, verb)(*args)

    @rule(path=PATHS, who=WRITERS, fault=st.integers(0, 5))
    def create(self, path: str, who: str, fault: int) -> None:
        data = self.content(who)
        free = path not in self.model
        try:
            version = self.attempt("create", fault, path, data)
        except AlreadyExists:
            assert not free
            return
        self.after(path, who, data, version, free)

    @rule(path=PATHS, who=WRITERS, fault=st.integers(0, 5))
    def swap(self, path: str, who: str, fault: int) -> None:
        base, version = self.seen.get((path, who), (b"?", "0" * 32))
        data = self.content(who)
        current = self.model.get(path) == base
        try:
            new = self.attempt("swap", fault, path, data, version)
        except Changed:
            assert not current
            return
        self.after(path, who, data, new, current)

    def after(self, path: str, who: str, data: bytes, version: str | None, allowed: bool) -> None:
        """A call that was answered took effect; one that was not, took effect whole or not at all."""
        if version is None:
            self.seen.pop((path, who), None)
            try:
                found = self.here.read(path)
            except NotFound:
                assert path not in self.model
                return
            if found == data:
                assert allowed
                self.model[path] = data
            return
        assert allowed
        self.model[path] = data
        self.seen[path, who] = (data, version)

    @rule(path=PATHS, who=WRITERS)
    def look(self, path: str, who: str) -> None:
        if path in self.model:
            self.seen[path, who] = self.here.read_version(path)
            assert self.seen[path, who][0] == self.model[path]

    @rule(path=PATHS)
    def delete(self, path: str) -> None:
        self.here.delete(path)
        self.model.pop(path, None)

    @invariant()
    def holds_what_the_model_says(self) -> None:
        if self.count:
            assert {entry.path: entry.bytes for entry in self.here.list()} == {
                path: len(data) for path, data in self.model.items()
            }


def test_commits_in_a_folder_survive_crashes(tmp_path):
    class Folder(Commits):
        store = open_store(f"file://{tmp_path}")

        def attempt(self, verb: str, fault: int, *args: Any) -> str | None:
            fate = Fate(at={0: 1, 1: 1}.get(fault), after=fault == 1)
            try:
                return getattr(FaultyStore(self.here, fate), verb)(*args)
            except Crash:
                return None

    run_state_machine_as_test(Folder, settings=settings(max_examples=40, stateful_step_count=20, deadline=None))


@pytest.mark.s3
def test_commits_on_s3_survive_lost_answers(s3_server, s3_uri, monkeypatch):
    def machine(proxy: Proxy) -> type[Commits]:
        class Bucket(Commits):
            store = open_store(s3_uri)

            def attempt(self, verb: str, fault: int, *args: Any) -> str | None:
                if fault < 3:
                    proxy.plan(("lost", "refused", "status")[fault], method="PUT")
                return getattr(self.here, verb)(*args)

        return Bucket

    quick = settings(max_examples=8, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck))
    with s3_proxy(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        run_state_machine_as_test(machine(proxy), settings=quick)


class Forgetful(Commits):
    """The negative control: a store whose swap looks at no version."""

    def attempt(self, verb: str, fault: int, *args: Any) -> str | None:
        if verb == "swap":
            path, data, _ = args
            self.here.write(path, data)
            return "version"
        return getattr(self.here, verb)(*args)


def test_the_model_notices_a_swap_that_does_not_compare(tmp_path):
    Forgetful.store = open_store(f"file://{tmp_path}")
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            Forgetful, settings=settings(max_examples=30, deadline=None, database=None, print_blob=False)
        )
