"""Sections → one HTML file: no scripts, nothing fetched, every text escaped.

Run names, messages and commands come from files that somebody else may have written. They are
escaped here, in one place, and a content security policy forbids scripts and every fetch besides.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ftfl.errors import FtflError
from ftfl.report.page import style_sheet
from ftfl.report.parts import Cell, Figure, LegendEntry, Notice, Section, Table
from ftfl.report.styles import STYLES
from ftfl.store.files import why

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def write_report(
    path: Path, title: str, sections: Sequence[Section], provenance: Mapping[str, Any]
) -> None:
    """Write a report; a reader sees the old file or the new one, never a part.

    Args:
        path: where the file goes.
        title: heading and window title.
        sections: the report, in order.
        provenance: facts on where the numbers come from; nested mappings become nested lists.

    Raises:
        FtflError: the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        temporary.write_text(render(title, sections, provenance), encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    except OSError as error:
        raise FtflError(f"cannot write the report {path}: {why(error)}.") from error


def render(title: str, sections: Sequence[Section], provenance: Mapping[str, Any]) -> str:
    """The whole document as text; equal input gives equal text."""
    figures = 0
    body = []
    for number, section in enumerate(sections, start=1):
        body.append(_section(section, f"section-{number}", figures))
        figures += len(section.figures)
    if provenance:
        body.append(
            '<section id="provenance">\n<h2>Where these numbers come from</h2>\n'
            f"{_facts(provenance)}\n</section>"
        )
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(title)}</title>",
            f"<style>\n{style_sheet()}\n</style>",
            "</head>",
            "<body>",
            f"<h1>{_text(title)}</h1>",
            *_contents(sections, bool(provenance)),
            *body,
            "</body>",
            "</html>",
            "",
        ]
    )


def _text(value: Any) -> str:
    """Escaped for text and for quoted attributes; control characters made visible."""
    return escape("".join(c if c.isprintable() or c in "\n\t" else "�" for c in str(value)))


def _contents(sections: Sequence[Section], provenance: bool) -> list[str]:
    if len(sections) < 2:
        return []
    items = [
        f'<li><a href="#section-{number}">{_text(section.title)}</a></li>'
        for number, section in enumerate(sections, start=1)
    ]
    if provenance:
        items.append('<li><a href="#provenance">Where these numbers come from</a></li>')
    return ["<nav><ol>", *items, "</ol></nav>"]


def _section(section: Section, name: str, figures_before: int) -> str:
    lines = [f'<section id="{name}">', f"<h2>{_text(section.title)}</h2>"]
    lines += [f"<p>{_text(paragraph)}</p>" for paragraph in section.paragraphs]
    lines += [_notice(notice) for notice in section.notices]
    if section.figures:
        lines.append('<div class="figures">')
        for number, figure in enumerate(section.figures, start=figures_before + 1):
            lines.append(_figure(figure, number))
        lines.append("</div>")
    lines += [_table(table) for table in section.tables]
    lines += [f"<pre>{_text(code)}</pre>" for code in section.code]
    lines.append("</section>")
    return "\n".join(lines)


def _notice(notice: Notice) -> str:
    lines = [
        f'<article class="notice {_text(notice.level)}">',
        f"<h3><span>{_text(notice.level)}</span> {_text(notice.title)}"
        f" <small>{_text(notice.where)}</small></h3>",
        *(f"<p>{_text(paragraph)}</p>" for paragraph in notice.paragraphs),
    ]
    if notice.facts:
        lines.append(_facts(dict(notice.facts)))
    return "\n".join([*lines, "</article>"])


def _figure(figure: Figure, number: int) -> str:
    lines = ["<figure>", f"<h3>Figure {number}. {_text(figure.title)}</h3>"]
    if figure.legend:
        lines += ['<ul class="legend">', *map(_legend, figure.legend), "</ul>"]
    if figure.svg:
        lines.append(_inline(figure.svg, f"figure{number}-", figure.title))
    lines += [f"<figcaption>{_text(figure.caption)}</figcaption>", "</figure>"]
    return "\n".join(lines)


def _legend(entry: LegendEntry) -> str:
    style = STYLES[entry.slot]
    colour = f"var(--arm-{entry.slot}, {style.light})"
    dashes = ' stroke-dasharray="6 3"' if entry.dashed else ""
    marker = "" if entry.dashed else _MARKERS[style.marker]
    return (
        f'<li><svg viewBox="0 0 32 13" aria-hidden="true" style="color: {colour}">'
        f'<path d="M0 6.5H32" fill="none" stroke="currentColor" stroke-width="2.4"{dashes}/>'
        f'{marker}</svg><span>{_text(entry.label)}</span></li>'
    )  # fmt: skip


_MARKERS = {
    name: f'<path d="{path}" fill="currentColor"/>'
    for name, path in {
        "s": "M12 2.5h8v8h-8z",
        "^": "M16 1.5l5 9h-10z",
        "v": "M16 11.5l5-9h-10z",
        "o": "M11.5 6.5a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
        "D": "M16 1l5.5 5.5l-5.5 5.5l-5.5-5.5z",
        "P": "M14.3 1.5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
        "X": "M12.5 1L16 4.5L19.5 1L21.5 3L18 6.5L21.5 10L19.5 12L16 8.5L12.5 12L10.5 10L14 6.5"
        "L10.5 3z",
        "*": "M16 .5l1.6 4.2l4.4.2l-3.4 2.8l1.1 4.3l-3.7-2.4l-3.7 2.4l1.1-4.3l-3.4-2.8l4.4-.2z",
    }.items()
}  # fmt: skip


def _inline(svg: str, prefix: str, title: str) -> str:
    """An SVG document as part of a page: no prolog, no namespaces, names of its own.

    HTML knows the namespaces by itself. Names (``id``) are prefixed because a page holds several
    drawings and Matplotlib calls the axes of each ``axes_1``.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    # Matplotlib's style element would apply to the whole page; the page's own sheet has it.
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", svg, flags=re.DOTALL)
    head, _, rest = svg.partition(">")
    head = re.sub(r'\s(xmlns(:\w+)?|width|height|version)="[^"]*"', "", head)
    svg = f'{head} role="img" aria-label="{_text(title)}">{rest}'.replace("xlink:href", "href")
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = svg.replace('href="#', f'href="#{prefix}').replace("url(#", f"url(#{prefix}")
    return svg.strip()


def _table(table: Table) -> str:
    title = _text(table.title)
    lines = ['<div class="table">']
    if table.rows:
        lines += [f"<details>\n<summary>{title}</summary>"] if table.folded else []
        lines += [f'<table aria-label="{title}">']
        lines += [] if table.folded else [f"<caption>{title}</caption>"]
        lines.append("<thead><tr>")
        lines += [f'<th scope="col">{_text(column)}</th>' for column in table.columns]
        lines += ["</tr></thead>", "<tbody>"]
        for first, *others in table.rows:
            lines.append(f'<tr><th scope="row">{_soft(_cell(first))}</th>')
            for column, cell in zip(table.columns[1:], others, strict=True):
                lines.append(f'<td data-column="{_text(column)}"><div>{_cell(cell)}</div></td>')
            lines.append("</tr>")
        lines += ["</tbody>", "</table>"]
    if table.notes:
        lines += ['<ul class="notes">', *(f"<li>{_text(n)}</li>" for n in table.notes), "</ul>"]
    lines += ["</details>"] if table.rows and table.folded else []
    lines.append("</div>")
    return "\n".join(lines)


def _cell(cell: Cell | str) -> str:
    cell = Cell(cell) if isinstance(cell, str) else cell
    text = f'<span class="alert">{_text(cell.text)}</span>' if cell.alert else _text(cell.text)
    return f"{text}<small>{_text(cell.detail)}</small>" if cell.detail else text


def _soft(markup: str) -> str:
    """Let ``dynamics.scale=unit`` wrap after its signs before it is broken inside a word."""
    return re.sub(r"(?<=\w)([=._/])(?=\w)", r"\1<wbr>", markup)


def _options(markup: str) -> str:
    """Options of a command line as code, which is not broken at its hyphens."""
    return re.sub(r"(?<![\w-])--[a-z][\w.-]*\w", r"<code>\g<0></code>", markup)


def _facts(facts: Mapping[str, Any]) -> str:
    lines = ["<dl>"]
    for name, value in facts.items():
        lines.append(f"<dt>{_text(name)}</dt><dd>{_fact(value)}</dd>")
    return "\n".join([*lines, "</dl>"])


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return _facts(value) if value else "none"
    if isinstance(value, list | tuple):
        return "<br>".join(_fact(item) for item in value) or "none"
    return "unknown" if value is None else _options(_text(value)) or "none"
