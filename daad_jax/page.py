"""Building blocks of an HTML page that stands alone: no scripts, no requests."""

import base64
import html
import io
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from daad_jax.errors import printable

_VOID = ("img", "br")
# JPEG is much smaller for photographs, and what it adds is invisible once an image is shrunk.
_LOSSLESS_SIZE = 128
_JPEG_QUALITY = 92

_STYLE = """
:root { color-scheme: light dark; --back: #ffffff; --text: #1d2229; --quiet: #5c6570;
  --rule: #dfe3e8; --panel: #f6f7f9; --accent: #2a6bb0; }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --text: #e4e7eb;
  --quiet: #9aa4b0; --rule: #2e343c; --panel: #1c2025; --accent: #7db4ee; } }
@media print { :root { color-scheme: light; --back: #ffffff; --text: #1d2229; --quiet: #5c6570;
  --rule: #dfe3e8; --panel: #f6f7f9; --accent: #2a6bb0; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1.25rem 4rem; background: var(--back);
  color: var(--text); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans",
  "Helvetica Neue", Arial, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 0.75rem; padding-top: 0.75rem;
  border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.75rem 0 0.5rem; }
p { margin: 0.4rem 0; max-width: 46rem; }
a { color: var(--accent); }
.note, figcaption { color: var(--quiet); font-size: 0.875rem; line-height: 1.45; }
.numbers { display: grid; gap: 0.75rem; margin: 1.25rem 0 0;
  grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); }
.number { background: var(--panel); border-radius: 0.5rem; padding: 0.75rem 0.9rem; }
.number b { display: block; font-size: 1.6rem; line-height: 1.25; font-weight: 600;
  font-variant-numeric: tabular-nums; }
.number span { display: block; color: var(--quiet); font-size: 0.8125rem; line-height: 1.4; }
.columns { display: grid; gap: 1.25rem 2rem; align-items: start; margin-top: 1.25rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, max(20rem, 34%)), 1fr)); }
.columns > * { min-width: 0; }
.columns h3 { margin-top: 0.25rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums;
  overflow-wrap: normal; }
th, td { padding: 0.3rem 1.1rem 0.3rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--rule); }
th { color: var(--quiet); font-weight: 500; }
th:first-child, td:first-child { text-align: left; }
th:last-child, td:last-child { padding-right: 0; }
td:first-child { position: sticky; left: 0; background: var(--back); white-space: normal;
  min-width: 7rem; max-width: 18rem; overflow-wrap: break-word; }
tr.total td { font-weight: 600; border-bottom: 0; }
figure { margin: 0; }
.plot > svg { display: block; width: 100%; height: auto; max-width: 30rem; }
.plot figcaption { margin-top: 0.15rem; }
.bar { max-width: 26rem; margin: 0.75rem 0; }
.examples { display: grid; gap: 1rem 1.75rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); }
.example { max-width: 30rem; min-width: 0; }
.tiles { display: grid; grid-template-columns: repeat(3, 1fr); gap: 0.25rem; }
.tile { position: relative; }
.tile img { display: block; width: 100%; border-radius: 0.2rem; }
.tile img.coarse { image-rendering: pixelated; }
.tile svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.tile path { fill: none; stroke: #22d3ee; stroke-width: 1.5; vector-effect: non-scaling-stroke; }
.tiles span { display: block; color: var(--quiet); font-size: 0.6875rem; line-height: 1.5; }
.example figcaption b { color: var(--text); font-weight: 600; }
details { margin-top: 2.75rem; border-top: 1px solid var(--rule); padding-top: 0.75rem; }
summary { font-size: 1.2rem; font-weight: 700; cursor: pointer; }
details table { margin-top: 0.75rem; }
details td { text-align: left; font-family: ui-monospace, Consolas, Menlo, monospace;
  font-size: 0.8125rem; }
@media print { .plot, .example, .number, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; } }
@media (max-width: 30rem) {
  body { padding: 1.25rem 1rem 3rem; }
  .number:first-child:nth-last-child(odd) { grid-column: 1 / -1; }
  table { font-size: 0.8125rem; }
  .numbers { grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); }
  th, td { padding-right: 0.7rem; }
}
"""


class Html(str):
    """Text that is HTML already; any other text is escaped before it gets into a page."""


def element(tag: str, *children: object, **attributes: object) -> Html:
    """An element; children and attribute values are escaped unless they are `Html`.

    Args:
        tag: its name.
        children: what stands in it, one after the other.
        attributes: ``class_`` stands for ``class``, ``view_box`` for ``viewBox``; None leaves one
            out.
    """
    names = {"class_": "class", "view_box": "viewBox"}
    parts = [
        f' {names.get(name, name)}="{escape(value)}"'
        for name, value in attributes.items()
        if value is not None
    ]
    opening = f"<{tag}{''.join(parts)}>"
    if tag in _VOID:
        return Html(opening)
    return Html(f"{opening}{''.join(map(escape, children))}</{tag}>")


def escape(value: object) -> Html:
    """Any text as HTML that shows it, see also `daad_jax.errors.printable`; `Html` stays."""
    if isinstance(value, Html):
        return value
    return Html(html.escape(printable(str(value)), quote=True))


def join(parts: Iterable[Html]) -> Html:
    """Elements one after the other."""
    return Html("\n".join(parts))


def table(
    header: Sequence[object], rows: Iterable[Sequence[object]], *, total: bool = False
) -> Html:
    """A table that scrolls inside its own box when the page is too narrow for it.

    Args:
        header: its cells; the first column holds text, the others numbers.
        rows: the cells of each row.
        total: whether the last row sums up the others.
    """
    lines = [element("tr", *(element("td", cell) for cell in row)) for row in rows]
    if total:
        lines[-1] = Html(lines[-1].replace("<tr>", '<tr class="total">', 1))
    head = element("thead", element("tr", *(element("th", cell) for cell in header)))
    body = element("tbody", join(lines))
    return element("div", element("table", head, body), class_="scroll")


def number(value: str, label: str, detail: str = "") -> Html:
    """One figure of a headline, with what it is and a remark."""
    remark = [element("span", detail)] if detail else []
    return element("div", element("span", label), element("b", value), *remark, class_="number")


def plot(svg: str, caption: str) -> Html:
    """A figure around an SVG element from `daad_jax.plots.inline_svg`."""
    return element("figure", Html(svg), element("figcaption", caption), class_="plot")


def image(pixels: np.ndarray, alt: str) -> Html:
    """An image inside the page; one of few pixels shows them.

    Args:
        pixels: uint8 ``(H, W)`` or ``(H, W, 3)``.
        alt: what it shows, for those who do not see it.
    """
    small = max(pixels.shape[:2]) <= _LOSSLESS_SIZE
    file = io.BytesIO()
    if small:
        Image.fromarray(pixels).save(file, "PNG", optimize=True)
    else:
        Image.fromarray(pixels).save(file, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    data = base64.b64encode(file.getvalue()).decode()
    source = f"data:image/{'png' if small else 'jpeg'};base64,{data}"
    return element("img", src=source, alt=alt, class_="coarse" if small else None)


def document(title: str, body: Iterable[Html]) -> str:
    """A whole page."""
    head = join(
        [
            Html('<meta charset="utf-8">'),
            Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            # The icon is what a browser would otherwise ask the page's server for.
            Html('<link rel="icon" href="data:,">'),
            element("title", title),
            Html(f"<style>{_STYLE}</style>"),
        ]
    )
    page = element("html", element("head", head), element("body", join(body)), lang="en")
    return f"<!doctype html>\n{page}\n"
