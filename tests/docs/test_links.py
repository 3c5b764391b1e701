"""Every link of the documentation leads somewhere, and every path that it names is there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_pages import HISTORY, ROOT, Page, pages

SOURCE = re.compile(r"(?:pipeline|stages|infra|vitpipe|tests|configs|docs|\.ci)/[\w./-]+")
BUILT = {"docs/_build", "docs/reference/generated"}
"""What `make docs` leaves, in no clone before."""


def broken(page: Page) -> Iterator[str]:
    """Name each link of a page whose file is not there, or has no such heading."""
    for line, target in page.links():
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.path.parent / path).resolve() if path else page.path.resolve()
        if not file.exists():
            yield f"{page.path.name}:{line}: {target}: no such file"
        elif anchor and anchor not in Page(file).anchors:
            yield f"{page.path.name}:{line}: {target}: no such heading"


def strangers(page: Page) -> Iterator[str]:
    """Name each path of the repository that a page says in code, and that is not there."""
    for line, _, text in page.spans():
        if (
            SOURCE.fullmatch(text)
            and "NAME" not in text
            and text.rstrip("/") not in BUILT
            and not any((ROOT / f"{text.rstrip('/')}{end}").exists() for end in ("", ".py"))
        ):
            yield f"{page.path.name}:{line}: {text}"


def test_links_lead_somewhere():
    read = pages()
    assert len(read) > 30 and sum(len(list(page.links())) for page in read) >= 100
    assert [one for page in read for one in broken(page)] == []


def test_paths_in_the_text_are_there():
    current = [page for page in pages() if page.path.relative_to(ROOT).as_posix() not in HISTORY]
    assert [one for page in current for one in strangers(page)] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[x](gone.md)", "page.md:1: gone.md: no such file"),
        ("![x](gone.png)", "page.md:1: gone.png: no such file"),
        ("[x](page.md#nowhere)", "page.md:1: page.md#nowhere: no such heading"),
        ("# Twice\n\n# Twice\n\n[x](#twice-2)", "page.md:5: #twice-2: no such heading"),
        ("| a |\n|---|\n| [x](gone.md) |", "page.md:3: gone.md: no such file"),
    ],
)
def test_a_broken_link_is_seen(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "page.md"
    path.write_text(text)
    assert list(broken(Page(path))) == [said]


def test_a_good_link_and_a_path_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(
        "# `a`: its *b*, twice\n\n# Twice\n\n# Twice\n\n[x](#twice-1) [y](page.md#a-its-b-twice) <https://x.y>"
    )
    assert list(broken(Page(path))) == []
    path.write_text("`stages/tasks.py` `infra/ray/gang` `stages/gone.py` `stages/ingest/sources/NAME.py`")
    assert list(strangers(Page(path))) == ["page.md:1: stages/gone.py"]
