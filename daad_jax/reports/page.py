"""Elements of an HTML page without scripts that needs no other file."""

import base64
import html
import io
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from daad_jax.errors import printable
from daad_jax.reports import plots

_VOID = ("img", "br")
# Larger images are stored as JPEG, which is much smaller.
_LOSSLESS_SIZE = 128
_JPEG_QUALITY = 92

_STYLE = """
:root { color-scheme: light; --back: #ffffff; --text: #1d2229; --quiet: #5c6570; --rule: #dfe3e8;
  --panel: #f6f7f9; --accent: #2a6bb0; }
@media screen and (prefers-color-scheme: dark) { :root { color-scheme: dark; --back: #14171b;
  --text: #e4e7eb; --quiet: #9aa4b0; --rule: #2e343c; --panel: #1c2025; --accent: #7db4ee; } }
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
.numbers div { background: var(--panel); border-radius: 0.5rem; padding: 0.75rem 0.9rem; }
.numbers b { display: block; font-size: 1.6rem; line-height: 1.25; font-weight: 600;
  font-variant-numeric: tabular-nums; }
.numbers span { display: block; color: var(--quiet); font-size: 0.8125rem; line-height: 1.4; }
.columns { display: grid; gap: 1.25rem 2rem; align-items: start; margin-top: 1.25rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, max(20rem, 34%)), 1fr)); }
.columns > * { min-width: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums;
  overflow-wrap: normal; }
th, td { padding: 0.3rem 1.1rem 0.3rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--rule); }
th, td span { color: var(--quiet); font-weight: 500; }
td span { display: block; font-size: 0.75rem; font-weight: 400; line-height: 1.35; }
th:first-child, td:first-child { text-align: left; }
th:last-child, td:last-child { padding-right: 0; }
td:first-child { position: sticky; left: 0; background: var(--back); white-space: normal;
  min-width: 7rem; max-width: 18rem; overflow-wrap: break-word; }
tr.total td { font-weight: 600; border-bottom: 0; }
figure { margin: 0; }
.plot > svg { display: block; width: 100%; height: auto; max-width: 30rem; }
.bar { max-width: 26rem; margin: 0.75rem 0; }
.examples { display: grid; gap: 1rem 1.75rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); }
.example { max-width: 30rem; min-width: 0; }
.tiles { display: grid; gap: 0.25rem;
  grid-template-columns: repeat(auto-fit, minmax(30%, 1fr)); }
.tile { position: relative; }
img { max-width: 100%; }
.tile img { display: block; width: 100%; border-radius: 0.2rem; }
.tile img.coarse { image-rendering: pixelated; }
.tile svg { position: absolute; inset: 0; width: 100%; height: 100%; }
.tile path { fill: none; stroke: #22d3ee; stroke-width: 1.5; vector-effect: non-scaling-stroke; }
.tiles span { display: block; color: var(--quiet); font-size: 0.6875rem; line-height: 1.5; }
figcaption b { color: var(--text); font-weight: 600; }
ul { margin: 0.5rem 0; padding-left: 1.2rem; max-width: 46rem; }
li { margin: 0.35rem 0; }
pre { background: var(--panel); border-radius: 0.5rem; padding: 0.75rem 0.9rem; margin: 0.75rem 0;
  font: 0.875rem/1.5 ui-monospace, Consolas, Menlo, monospace; white-space: pre-wrap; }
pre span { display: inline-block; max-width: 100%; }
.verdict { font-size: 1.15rem; margin: 0.75rem 0 0; }
.sheet { display: grid; gap: 0.6rem; align-items: end;
  grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr)); }
.sheet img { display: block; width: 100%; border-radius: 0.2rem;
  outline: 1px solid var(--rule); }
.sheet figcaption { font-size: 0.6875rem; line-height: 1.35; }
details { margin-top: 2.75rem; border-top: 1px solid var(--rule); padding-top: 0.75rem; }
summary { font-size: 1.2rem; font-weight: 700; cursor: pointer; }
details table { margin-top: 0.75rem; }
details td { text-align: left; font: 0.8125rem ui-monospace, Consolas, Menlo, monospace; }
@media print { .plot, .example, .numbers div, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; } }
@media (max-width: 30rem) { body { padding: 1.25rem 1rem 3rem; } table { font-size: 0.8125rem; }
  .numbers { grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); }
  th, td { padding-right: 0.7rem; } }
"""


# Without an icon a browser requests one from the server.
_HEAD = """
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
"""


class Html(str):
    """Text that is HTML. Any other text is escaped before it is put into a page."""


def element(tag: str, *children: object, **attributes: object) -> Html:
    """An element. Children and attribute values are escaped unless they are `Html`.

    In `attributes`, ``class_`` becomes ``class``. An attribute that is None is left out.
    """
    parts = [
        f' {name.rstrip("_")}="{escape(value)}"'
        for name, value in attributes.items()
        if value is not None
    ]
    opening = f"<{tag}{''.join(parts)}>"
    if tag in _VOID:
        return Html(opening)
    return Html(f"{opening}{''.join(map(escape, children))}</{tag}>")


def escape(value: object) -> Html:
    """Escapes any text and makes it printable. `Html` is returned unchanged."""
    if isinstance(value, Html):
        return value
    return Html(html.escape(printable(str(value)), quote=True))


def join(parts: Iterable[Html]) -> Html:
    """Joins elements with line breaks."""
    return Html("\n".join(parts))


def section(title: str, *parts: Html) -> Html:
    """A section: its heading and its contents."""
    return join([element("h2", title), *parts])


def note(text: str) -> Html:
    """A paragraph in small print."""
    return element("p", text, class_="note")


def table(header: Sequence[str], rows: Iterable[Sequence[object]], *, total: bool = False) -> Html:
    """A table that scrolls inside its own box when the page is too narrow for it.

    The first column is for text and the others for numbers. Underscores of the header are shown as
    spaces, except in elements. `total` says whether the last row is a summary of the others.
    """
    lines = [element("tr", *(element("td", cell) for cell in row)) for row in rows]
    if total:
        lines[-1] = Html(lines[-1].replace("<tr>", '<tr class="total">', 1))
    titles = [cell if isinstance(cell, Html) else words(cell) for cell in header]
    head = element("thead", element("tr", *(element("th", title) for title in titles)))
    body = element("tbody", join(lines))
    return element("div", element("table", head, body), class_="scroll")


def numbers(*values: tuple[str, str, str]) -> Html:
    """A row of large numbers, each given as label, number and a remark."""
    boxes = [
        element("div", element("span", label), element("b", number), element("span", remark))
        for label, number, remark in values
    ]
    return group("numbers", boxes)


def group(class_: str, parts: Iterable[Html]) -> Html:
    """Parts side by side. The class is "numbers", "columns", "examples" or "tiles"."""
    return element("div", *parts, class_=class_)


def plot(figure: plots.Figure, caption: str, *, class_: str = "plot") -> Html:
    """A Matplotlib figure with a caption. Captions of one page must differ."""
    drawn = Html(plots.inline_svg(figure, caption))
    return element("figure", drawn, element("figcaption", caption), class_=class_)


def example(tiles: Iterable[Html], title: str, detail: str, name: str) -> Html:
    """One test image as a row of tiles, with the caption "title · detail" and the image's name."""
    caption = element("figcaption", element("b", title), f" \u00b7 {detail}", element("br"), name)
    return element("figure", group("tiles", tiles), caption, class_="example")


def tile(pixels: np.ndarray, label: str, name: str, path: str = "") -> Html:
    """A picture with its label below and an optional outline over it.

    `pixels` is uint8 ``(H, W)`` or ``(H, W, 3)``. `name` is the image that it belongs to. `path` is
    the outline as the data of an SVG path in pixels.
    """
    layers = [image(pixels, f"{words(label)} of {name}")]
    if path:
        drawn = element("path", d=path)
        layers.append(element("svg", drawn, viewBox=f"0 0 {pixels.shape[1]} {pixels.shape[0]}"))
    return element("div", element("div", *layers, class_="tile"), element("span", words(label)))


def image(pixels: np.ndarray, alt: str) -> Html:
    """An image inside the page. Small images are enlarged without smoothing.

    `pixels` is uint8 ``(H, W)`` or ``(H, W, 3)``. `alt` replaces the image where it cannot be seen.
    """
    small = max(pixels.shape[:2]) <= _LOSSLESS_SIZE
    options = {"optimize": True} if small else {"quality": _JPEG_QUALITY, "subsampling": 0}
    file, kind = io.BytesIO(), "png" if small else "jpeg"
    Image.fromarray(pixels).save(file, kind, **options)
    data = f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
    return element("img", src=data, alt=alt, class_="coarse" if small else None)


def words(name: str) -> str:
    """A name with spaces instead of underscores."""
    return name.replace("_", " ")


def document(title: str, body: Iterable[Html]) -> str:
    """A complete page."""
    head = element("head", Html(_HEAD), element("title", title), Html(f"<style>{_STYLE}</style>"))
    page = element("html", head, element("body", join(body)), lang="en")
    return f"<!doctype html>\n{page}\n"
