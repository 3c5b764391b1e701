"""What a spec may not do to us: no bomb is expanded, no secret repeated, no text ends in a traceback."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_spec import GOOD, problems, with_node

from vitpipe.infra.errors import VitpipeError
from vitpipe.pipeline.spec.load import load
from vitpipe.pipeline.spec.schema import json_schema
from vitpipe.pipeline.spec.text.secret_shapes import secret_key, secret_text

ANCHORS = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
BOMBS = {
    "aliases": "a0: &a0 [1, 1]\n" + ANCHORS,
    "vars": GOOD.replace("S/16", "'${vars.v29}'")
    + "vars:\n  v0: [1, 1]\n"
    + "".join(f"  v{n}: {['${vars.v' + str(n - 1) + '}'] * 9}\n" for n in range(1, 30)),
    "texts": GOOD.replace("S/16", "'${vars.v29}'")
    + "vars:\n  v0: aaaaaaaa\n"
    + "".join(f"  v{n}: '{('${vars.v' + str(n - 1) + '}') * 9}'\n" for n in range(1, 30)),
    "siblings": with_node(
        f"{{stage: ingest, foreach: {{{', '.join(f'k{n}: [1, 2, 3, 4]' for n in range(9))}}}, "
        "config: {source: {kind: digits}}}"
    ),
    "depth": "[" * 5000,
    "deep mapping": "\n".join(" " * n + "a:" for n in range(400)),
    "deep aliases": "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 3000)),
    "length": "# " + "x" * 300_000,
    "recursion": "a: &a [*a]",
    "long number": "version: " + "9" * 10_000,
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_is_refused_before_it_is_expanded(text: str) -> None:
    assert problems(text)


SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLE7k"
SECRETS = {
    "key id": with_node("{stage: ingest, config: {source: {kind: folder, root: AKIAIOSFODNN7EXAMPLE}}}"),
    "key of the key id": GOOD + "AKIAIOSFODNN7EXAMPLE: 1",
    "secret": GOOD + f"vars: {{x: {SECRET}}}",
    "aws_secret_access_key": GOOD + "vars: {aws_secret_access_key: canary}",
    "password": GOOD + "vars: {db: {password: canary}}",
    "token": GOOD.replace("name: run", "token: canary"),
    "hyphens": GOOD + "vars: {api-key: canary}",
    "camel case": GOOD + "vars: {apiKey: canary, hfToken: canary}",
    "URL": GOOD.replace("file://./runs", "s3://canary:canary@bucket/x"),
    "duplicate secret keys": GOOD + "vars: {AKIAIOSFODNN7EXAMPLE: 1, AKIAIOSFODNN7EXAMPLE: 2}",
    "in a list": GOOD + "vars: {x: [1, ghp_0123456789abcdefghijABCDEFGHIJ]}",
}


@pytest.mark.parametrize("text", SECRETS.values(), ids=SECRETS.keys())
def test_a_secret_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(VitpipeError) as caught:
        load(text, env={})

    told = f"{caught.value}{caught.value.to_json()}"
    assert "credential" in told
    for canary in ("canary", SECRET, "AKIAIOSFODNN7EXAMPLE", "ghp_"):
        assert canary not in told


def test_a_secret_from_the_environment_or_an_override_is_refused_and_not_repeated() -> None:
    (override,) = problems(GOOD, f"vars.x={SECRET}")
    (environment,) = problems(GOOD.replace("S/16", "'${env:VITPIPE_X}'"), VITPIPE_X=SECRET)

    assert SECRET not in override + environment


@pytest.mark.parametrize(
    "value",
    ["/data/imagenet2012/Train/JPEGs/part0/abcdefgh", "da39a3ee5e6b4b0d3255bfef95601890afd80709", "tokens=196"],
)
def test_paths_and_digests_are_no_secrets(value: str) -> None:
    load(GOOD + f"vars: {{x: '{value}'}}")


def fields(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        yield from part.get("properties", {})
    for inside in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from fields(inside)


def test_no_field_is_taken_for_a_secret() -> None:
    known = set(fields(json_schema()))

    assert {"class_token", "registers", "shots"} <= known
    assert not [name for name in known if secret_key(name)]
    assert all(map(secret_key, ("token", "hf_token", "my_class_token", "class_token_auth")))


WORDS = st.sampled_from(
    [*"{}[]:,-#&*!|>'\"%@`\n \t", "${vars.a}", "${each.k}", "${env:VITPIPE_A}", "foreach", "nodes", "stage", "ingest",
     "needs", "config", "version: 1\n", "name: a\n", "store: file://x\n", "null", "1e-3", "<<", "\\x00", "é", "  "]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(WORDS, st.text(max_size=5)), max_size=30).map("".join), st.booleans())
def test_no_text_ends_in_a_traceback(text: str, append: bool) -> None:
    try:
        load(GOOD + text if append else text, env={})
    except VitpipeError as error:
        assert error.code == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | WORDS, inner, max_size=3),
    max_leaves=8,
)
PLACES = st.sampled_from(
    ["nodes.net.config", "nodes.net.config.model", "nodes.net.config.model.variant", "nodes.net.needs", "nodes", "vars",
     "nodes.net.needs.shards", "nodes.net.foreach", "nodes.net.resources.workers", "store", "name", "version",
     "nodes.data.config.source.root"]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@example("nodes.data.config.source.root", "~0")
@example("nodes.data.config.source.root", "~\ud800\udc00")
@given(PLACES, JSON)
def test_no_override_ends_in_a_traceback(place: str, value: object) -> None:

    try:
        load(GOOD, [f"{place}={json.dumps(value)}"], env={})
    except VitpipeError as error:
        assert error.code == 2


@pytest.mark.parametrize("text", ["x" * 300_000, "x://" + ":" * 300_000, "x://" * 100_000, "eyJ" * 100_000])
def test_looking_for_credentials_takes_time_in_proportion(text: str) -> None:
    assert not secret_text(text)  # in milliseconds; looking anew from each letter took hours
    assert secret_text(f"{text} postgres://me:hunter2@host/db")
