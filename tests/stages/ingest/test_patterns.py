"""Which files `urls` name, and what is said when they name none."""

import pytest
from braceexpand import braceexpand
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from photos import write
from webdataset.shardlists import expand_urls

from vitpipe.infra.errors import UsageError
from vitpipe.stages.ingest.sources.patterns import count_names, expand, find_files


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("{8..10}", ["8", "9", "10"]),
        ("{0..8..4}{b..a}", ["0b", "0a", "4b", "4a", "8b", "8a"]),
        ("{000..001}-{x,yy}", ["000-x", "000-yy", "001-x", "001-yy"]),
        ("{train-{0..1},val,}.tar", ["train-0.tar", "train-1.tar", "val.tar", ".tar"]),
        ("{one}{}", ["{one}{}"]),
        ("{5..4}", ["5", "4"]),
        (r"\{1,2\}", ["{1,2}"]),
    ],
)
def test_braces(pattern, names):
    assert expand(pattern) == names


WORDS = st.text("ab.-", max_size=3)
RANGES = st.from_regex(r"\{(-?[0-9]{1,2}\.\.-?[0-9]{1,2}|[a-fX]\.\.[a-fZ])(\.\.-?[0-3])?\}", fullmatch=True)
BRACES = st.recursive(
    WORDS | RANGES,
    lambda inner: (
        st.lists(inner, max_size=3).map("".join)
        | st.lists(inner, min_size=1, max_size=3).map(lambda parts: "{" + ",".join(parts) + "}")
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.lists(BRACES, min_size=1, max_size=3))
def test_lists_and_braces_mean_what_they_mean_to_webdataset(patterns):
    assume(sum(map(count_names, patterns)) < 20_000)
    text = "::".join(patterns)
    assert [name for pattern in text.split("::") for name in expand(pattern)] == expand_urls(text)
    assert [count_names(pattern) for pattern in patterns] == [len(list(braceexpand(one))) for one in patterns]


@settings(deadline=None)
@example("}{{,}")
@example("}{,{0..3}{0..3}")
@given(st.text("{},.\\019ab", max_size=14))
def test_any_text_means_the_same_or_is_refused_and_is_never_counted_short(text):
    assume(count_names(text) < 20_000)
    try:
        theirs = expand_urls(text)
    except ValueError:
        with pytest.raises(UsageError, match="its braces cannot be meant"):
            expand(text)
    else:
        assert expand(text) == theirs and count_names(text) >= len(theirs)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("{000000..999999}-{000000..999999}", "1000000000000 names"),
        ("{x{0..999999}{0..999999},{1..10000000}}", "1000010000000 names"),
        ("{a..z}" * 9, f"{26**9} names"),
        ("{1..2", "Unbalanced braces"),
        ("{" * 1200 + "}" * 1200, "its braces cannot be meant: they are nested 1200 deep"),
        ("{1.." + "9" * 5000 + "}", "its braces cannot be meant"),
    ],
    ids=range(6),
)
def test_too_many_names_and_broken_braces_are_refused_before_they_are_made(pattern, found):
    with pytest.raises(UsageError, match=found):
        expand(pattern)


@pytest.fixture
def folder(tmp_path):
    for name in ("a-0.tar", "a-1.tar", "deep/b.tar", "deep/down/c.tar", "notes.txt", "[odd] {1..2}.tar"):
        write(tmp_path / name, b"x" * len(name))
    return tmp_path


@pytest.mark.parametrize(
    ("urls", "names"),
    [
        (["a-{0..1}.tar"], ["a-0.tar", "a-1.tar"]),
        (["a-*.tar"], ["a-0.tar", "a-1.tar"]),
        (["*/*.tar"], ["b.tar"]),
        (["**/?.tar"], ["b.tar", "down/c.tar"]),
        (["deep"], ["b.tar", "down/c.tar"]),
        (["deep/", "a-[!0].tar"], ["a-1.tar", "deep/b.tar", "deep/down/c.tar"]),
        (["[odd] {1..2}.tar"], ["[odd] {1..2}.tar"]),
        (["notes.txt"], ["notes.txt"]),
    ],
)
def test_local_patterns(folder, urls, names):
    parts = find_files([f"{folder}/{url}" for url in urls], ".tar")
    assert [part.name for part in parts] == names
    assert [part.number for part in parts] == list(range(len(names)))


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("none.tar", r"none\.tar': no file of that name"),
        ("b-*.tar", r"b-\*\.tar': no file"),
        ("a-{0..3}.tar", r"2 of 4 are not there: '.*a-2\.tar', '.*a-3\.tar'"),
        ("deep/down/*.parquet", "no file"),
    ],
)
def test_a_pattern_that_names_nothing(folder, url, found):
    with pytest.raises(UsageError, match=found):
        find_files([f"{folder}/{url}"], ".tar")


def test_a_file_named_twice(folder):
    with pytest.raises(UsageError, match=r"a-0\.tar is named twice"):
        find_files([f"{folder}/a-0.tar", f"{folder}/a-*.tar"], ".tar")


@pytest.mark.s3
def test_patterns_in_a_bucket(s3_uri):
    from vitpipe.infra.storage.opening import open_store

    store = open_store(s3_uri)
    for name in ("a-0.tar", "a-1.tar", "deep/b.tar", "notes.txt"):
        store.write(name, name.encode())

    def named(*urls):
        return [part.name for part in find_files([f"{s3_uri}/{url}" for url in urls], ".tar")]

    assert named("a-{0..1}.tar") == named("a-*.tar") == named("?-[01].tar") == ["a-0.tar", "a-1.tar"]
    assert named("") == named("**/*.tar") == ["a-0.tar", "a-1.tar", "deep/b.tar"]
    assert named("deep") == named("deep/") == ["b.tar"]
    for url in ("none/", "b-*.tar", "a-9.tar"):
        with pytest.raises(UsageError, match="no file of that name or pattern"):
            named(url)
    with pytest.raises(UsageError, match=r"1 of 3 are not there: '.*a-2\.tar'"):
        named("a-{0..2}.tar")


@pytest.mark.parametrize("odd", ["}{,{0..99}{0..99}{0..99}{0..99}", "{{{0..9999}{0..9999}", "01}{,{0..999}{0..9999}"])
def test_odd_braces_are_not_expanded_without_bound(odd: str) -> None:
    with pytest.raises(UsageError, match="the most is"):
        expand(odd)
    assert expand("a}{b,c") == list(braceexpand("a}{b,c"))
