"""What a report is made of, as plain data: instruments fill it in, ``html`` draws it.

Every string here is text, never markup: the renderer escapes all of it. The one exception is
``Figure.svg``, which ``figures.draw`` makes and nobody else should.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LegendEntry:
    """One arm in a figure; the renderer draws its line from ``slot`` (see ``styles``)."""

    label: str
    slot: int
    dashed: bool = False
    """The arm's reference quantity, drawn dashed in the same colour."""


@dataclass(frozen=True)
class Figure:
    """A drawing with what a reader must know to read it."""

    title: str
    svg: str
    """A complete SVG document, or empty when there was nothing to draw (the caption says why)."""
    caption: str
    legend: tuple[LegendEntry, ...] = ()


@dataclass(frozen=True)
class Cell:
    """A table cell: the number first, then in small print what it is made of."""

    text: str
    detail: str = ""
    alert: bool = False
    """Marks a cell a reader must not miss, for example a failed seed."""


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first cell of a row names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell | str, ...], ...]
    notes: tuple[str, ...] = ()
    folded: bool = False
    """On a screen only its title is shown until a reader opens it; on paper it is open."""


@dataclass(frozen=True)
class Notice:
    """Something that was found, as a reader needs it: how bad, where, what, why, and what to do."""

    level: str
    """``failure``, ``warning`` or ``info``, the classes of the style sheet."""
    title: str
    where: str
    paragraphs: tuple[str, ...]
    facts: tuple[tuple[str, str], ...] = ()
    """Named sentences below."""


@dataclass(frozen=True)
class Section:
    """A headed part of a report, drawn in the order of its fields."""

    title: str
    paragraphs: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    code: tuple[str, ...] = ()
    """Commands or listings, kept line by line."""
    notices: tuple[Notice, ...] = ()
    """Drawn below the paragraphs."""
