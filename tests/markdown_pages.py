"""The project's Markdown, read once: its links, headings, blocks and words in code. Knows no rule about them."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
MADE = {"reference/generated", "_build"}
HISTORY = {"docs/runs.md", "CHANGELOG.md"}
"""They say what was, in the words of its time."""


class Code(NamedTuple):
    """A fenced block, or the words of one code span (of no language, `span`)."""

    line: int
    language: str
    text: str


class Page:
    """One file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tokens = MarkdownIt("commonmark").enable("table").parse(path.read_text())

    @cached_property
    def anchors(self) -> set[str]:
        """The names that GitHub gives the headings, which are those of the site."""
        titles = (
            _plain(after)
            for one, after in zip(self._tokens, self._tokens[1:], strict=False)
            if one.type == "heading_open"
        )
        seen: Counter[str] = Counter()
        found = set()
        for title in titles:
            slug = re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
            found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
        return found

    @cached_property
    def headings(self) -> list[tuple[str, str]]:
        """Tag and text of each heading."""
        pairs = zip(self._tokens, self._tokens[1:], strict=False)
        return [(one.tag, _plain(after)) for one, after in pairs if one.type == "heading_open"]

    def links(self) -> Iterator[tuple[int, str]]:
        """Line and target of each link and picture."""
        for line, token in self._inline():
            target = token.attrs.get("href") or token.attrs.get("src")
            if isinstance(target, str):
                yield line, target

    def blocks(self) -> Iterator[Code]:
        """Fenced code."""
        for token in self._tokens:
            if token.type == "fence":
                yield Code(token.map[0] + 1 if token.map else 0, token.info.strip(), token.content)

    def spans(self) -> Iterator[Code]:
        """Code inside of sentences and tables."""
        yield from (Code(line, "span", one.content) for line, one in self._inline() if one.type == "code_inline")

    def _inline(self) -> Iterator[tuple[int, Token]]:
        for token in self._tokens:
            if token.type == "inline":
                yield from ((token.map[0] + 1 if token.map else 0, child) for child in token.children or ())


def pages() -> list[Page]:
    """Every page that people write, of the checkout's root and below `docs`."""
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return [Page(path) for path in sorted(paths) if not any(part in path.as_posix() for part in MADE)]


def _plain(inline: Token) -> str:
    kinds = ("text", "code_inline", "text_special")
    return "".join(one.content for one in inline.children or () if one.type in kinds)
