"""The look of a report: one style sheet for phones, screens, dark rooms and paper."""

from __future__ import annotations

from ftfl.report.styles import GRID, INK, STYLES


def style_sheet() -> str:
    """All CSS of a report; paper is always light."""
    light = " ".join(f"--arm-{i}: {style.light};" for i, style in enumerate(STYLES))
    dark = " ".join(f"--arm-{i}: {style.dark};" for i, style in enumerate(STYLES))
    return (
        _SHEET.replace("INK", INK).replace("GRID", GRID).replace("LIGHT", light)
        .replace("DARK", dark).strip()
    )  # fmt: skip


_SHEET = """
:root { color-scheme: light dark; --ink: INK; --soft: #565b63; --paper: #ffffff; --card: #f6f7f8;
  --grid: GRID; --alert: #a8200d; --warn: #8a5a00; LIGHT }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e7e9ec; --soft: #a5abb4; --paper: #15171a; --card: #1d2024; --grid: #3a3f46;
    --alert: #ff8d7c; --warn: #f0b95a; DARK }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1.25rem 1rem 3rem; max-width: 76rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .75rem; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.5rem 0 .5rem; padding-top: .75rem;
  border-top: 1px solid var(--grid); }
p, ul.notes { max-width: 46rem; }
a { color: inherit; }
nav ol { margin: 0; padding-left: 1.25rem; }
.figures { display: grid; gap: 1rem; margin: 1rem 0; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); }
.notice { max-width: 46rem; margin: .75rem 0; padding: .6rem .9rem .7rem; background: var(--card);
  border-left: .3rem solid var(--mark, var(--soft)); border-radius: .25rem; }
.notice.failure { --mark: var(--alert); }
.notice.warning { --mark: var(--warn); }
.notice h3 { font-size: 1rem; line-height: 1.35; margin: 0; }
.notice h3 span { color: var(--mark, var(--soft)); }
.notice h3 span::after { content: ":"; }
.notice h3 small { display: inline; font-weight: 400; }
.notice p { margin: .3rem 0 0; }
.notice dl { margin: .5rem 0 0; }
dd code { font-size: .85em; white-space: nowrap; }
figure { margin: 0; padding: .75rem; background: var(--card); border-radius: .4rem; min-width: 0;
  max-width: 34rem; }
figure h3, caption, summary { font-size: 1rem; font-weight: 600; line-height: 1.3;
  text-align: left; }
figure h3 { margin: 0 0 .25rem; }
figure > svg { display: block; width: 100%; height: auto; color: var(--ink);
  stroke-linejoin: round; stroke-linecap: butt; }
figure text { font-family: system-ui, -apple-system, "Segoe UI", sans-serif !important; }
figcaption { font-size: .85rem; line-height: 1.45; color: var(--soft); margin-top: .5rem; }
.legend { display: flex; flex-wrap: wrap; gap: .15rem 1rem; margin: 0 0 .25rem; padding: 0;
  list-style: none; font-size: .85rem; }
.legend li { display: flex; align-items: center; gap: .4rem; min-width: 0; }
.legend svg { flex: none; width: 2rem; height: .8rem; }
.table { margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; line-height: 1.35;
  font-variant-numeric: tabular-nums; }
caption { padding-bottom: .4rem; }
summary { cursor: pointer; padding: .3rem 0; }
th, td { min-width: 4.5em; padding: .4rem .6rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--grid); }
thead th { color: var(--soft); font-weight: 500; font-size: .8rem; vertical-align: bottom; }
tbody th { font-weight: 600; min-width: 8em; }
small { display: block; color: var(--soft); font-size: .8rem; font-weight: 400; }
.alert { color: var(--alert); font-weight: 600; }
ul.notes { margin: .5rem 0 0; padding-left: 1.1rem; font-size: .85rem; color: var(--soft); }
pre { margin: .75rem 0; padding: .75rem; background: var(--card); border-radius: .4rem;
  font: .8rem/1.5 ui-monospace, Menlo, Consolas, monospace; white-space: pre-wrap; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; font-size: .85rem;
  margin: .5rem 0; }
dt { color: var(--soft); }
dd { margin: 0; min-width: 0; }
@media screen and (max-width: 52rem) {
  table, tbody, tr, th, td, caption { display: block; width: 100%; }
  thead { display: none; }
  tbody tr { padding: .5rem .75rem; margin-bottom: .6rem; background: var(--card);
    border-radius: .4rem; }
  tbody th { padding: 0 0 .25rem; border: 0; }
  td { display: grid; grid-template-columns: 9rem minmax(0, 1fr); gap: .75rem; border: 0;
    padding: .15rem 0; }
  td::before { content: attr(data-column); color: var(--soft); font-size: .8rem; }
}
@media screen and (max-width: 30rem) {
  body { padding: 1rem .75rem 2rem; }
  figure { padding: .6rem .5rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
}
@media print {
  @page { margin: 14mm; }
  html { font-size: 9pt; }
  body { padding: 0; max-width: none; }
  figure, pre { border: 1px solid var(--grid); }
  figure, tr, .notice { break-inside: avoid; }
  h2, h3, caption, summary { break-after: avoid; }
  summary { list-style: none; }
  details::details-content { content-visibility: visible; height: auto; }
  .figures { grid-template-columns: 1fr 1fr; gap: 4mm; }
  table { font-size: 8pt; }
  th, td { padding: 1mm 1.2mm; min-width: 0; overflow-wrap: break-word; }
}
"""
