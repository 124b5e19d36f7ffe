"""Markdown to one self-contained HTML page: inline style, no script, no outside asset, light and dark. Pure.

Raw HTML in markdown is shown as text, never passed through. `docs.py` calls it, for our own pages.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Final

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from markdown_it.token import Token

STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c2024;--soft:#5b6570;--paper:#fff;--tint:#f4f5f7;--line:#d9dde2;--link:#0b5fad}
@media(prefers-color-scheme:dark){:root{--ink:#e4e7ea;--soft:#9aa4af;--paper:#15181b;--tint:#1f2428;--line:#343b42;
--link:#7db8f5}}
*{box-sizing:border-box}
body{margin:0;color:var(--ink);background:var(--paper);font:16px/1.6 system-ui,sans-serif;-webkit-text-size-adjust:100%}
.skip{position:absolute;left:-999em}.skip:focus{left:1em;top:1em;background:var(--paper);padding:.5em}
nav{padding:1rem;border-bottom:1px solid var(--line);background:var(--tint)}
nav ul{list-style:none;margin:.5rem 0 0;padding:0;display:flex;flex-wrap:wrap;gap:.25rem 1rem}
nav a[aria-current]{font-weight:600;color:var(--ink);text-decoration:none}
main{max-width:54rem;padding:1rem;margin:0 auto;overflow-wrap:break-word}
a{color:var(--link)}a:focus-visible{outline:2px solid var(--link);outline-offset:2px}
h1{font-size:1.8rem;line-height:1.2}h2{margin-top:2.2rem;padding-bottom:.2rem;border-bottom:1px solid var(--line)}
h2,h3{line-height:1.3}
code{font:.9em ui-monospace,monospace;background:var(--tint);padding:.1em .3em;border-radius:3px}
pre{background:var(--tint);border:1px solid var(--line);border-radius:6px;padding:.8rem;overflow-x:auto}
pre code{padding:0;background:none}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.93em}
th,td{border:1px solid var(--line);padding:.35rem .6rem;text-align:left;vertical-align:top}
th{background:var(--tint)}blockquote{margin:1rem 0;padding:.1rem 1rem;border-left:4px solid var(--line);
color:var(--soft)}
@media(min-width:64rem){body{display:grid;grid-template-columns:15rem 1fr}nav{border:0;border-right:1px solid
var(--line);min-height:100vh}nav ul{display:block}main{margin:0;padding:1rem 2.5rem}}
"""

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<nav aria-label="Pages"><a class="skip" href="#content">Skip to the text</a>
<a href="/docs"{index_mark}>Convene</a>
<ul>
{menu}
</ul></nav>
<main id="content">
{body}{source}</main>
</body>
</html>
"""


def render_page(markdown: str, name: str, menu: Sequence[tuple[str, str]]) -> bytes:
    """Return the page as HTML.

    Args:
        markdown: its text, links to other pages as `name.md`.
        name: its name in the address; empty for the list of pages.
        menu: every page's name and title.
    """
    reader = _reader()
    tokens = reader.parse(markdown)
    _name_headings(tokens)
    _point_links(tokens)
    body = reader.renderer.render(tokens, reader.options, {})
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    title = title_of(markdown)
    return _PAGE.format(
        title=html.escape(title if title == "Convene" else f"{title} - Convene"),
        style=STYLE,
        index_mark="" if name else _MARK,
        menu="\n".join(_menu_row(one, words, name) for one, words in menu),
        body=body,
        source=f'<p><a href="/docs/{name}.md">This page as markdown</a></p>\n' if name else "",
    ).encode()


_MARK: Final = ' aria-current="page"'


def title_of(markdown: str) -> str:
    """Return the text of the first heading. Raises `ValueError` if the first line is none."""
    first, _, _ = markdown.partition("\n")
    if not first.startswith("# "):
        raise ValueError(f"a page begins with its title, not with {first[:60]!r}")
    return first.removeprefix("# ").strip()


def sections_of(markdown: str) -> list[tuple[str, str]]:
    """Return the text and the anchor of every heading below the title, in order."""
    tokens = _reader().parse(markdown)
    return [(tokens[place + 1].content, anchor) for place, anchor in _anchors(tokens) if tokens[place].tag != "h1"]


def _reader() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _menu_row(name: str, words: str, current: str) -> str:
    return f'<li><a href="/docs/{name}"{_MARK if name == current else ""}>{html.escape(words)}</a></li>'


def _anchors(tokens: Sequence[Token]) -> Iterable[tuple[int, str]]:
    """Yield the place and the anchor of each heading: GitHub's rule, so that links work there too."""
    seen: dict[str, int] = {}
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            words = tokens[place + 1].content.replace("`", "").lower()
            anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
            again = seen.get(anchor, 0)
            seen[anchor] = again + 1
            yield place, f"{anchor}-{again}" if again else anchor


def _name_headings(tokens: Sequence[Token]) -> None:
    for place, anchor in _anchors(tokens):
        tokens[place].attrSet("id", anchor)


def _point_links(tokens: Iterable[Token]) -> None:
    """Turn `name.md` into the page's address here; leave every other link as it is."""
    for token in tokens:
        for child in token.children or ():
            target = child.attrGet("href")
            if child.type == "link_open" and isinstance(target, str):
                found = re.fullmatch(r"([a-z-]+)\.md(#[\w-]*)?", target)
                if found:
                    child.attrSet("href", f"/docs/{found[1]}{found[2] or ''}")
