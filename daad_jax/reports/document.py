"""A document of texts, tables and pictures that is written as Markdown and as one HTML page."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from daad_jax.reports import page
from daad_jax.reports.page import Html, element


class Table(NamedTuple):
    """A table. A cell may have several lines. The first column is for text."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Picture(NamedTuple):
    """A picture: its file, relative to the document's folder, and what can be seen."""

    file: str
    caption: str


class Items(NamedTuple):
    """A list of texts."""

    texts: Sequence[str]


class Code(NamedTuple):
    """Lines of a shell."""

    text: str


Block = str | Table | Picture | Items | Code


class Section(NamedTuple):
    """A heading and what is below it."""

    title: str
    blocks: Sequence[Block]


class Document(NamedTuple):
    """A title, what is below it, and sections. A text may have `code` and **strong** words."""

    title: str
    blocks: Sequence[Block]
    sections: Sequence[Section]


def to_markdown(document: Document) -> str:
    """Renders a document as GitHub Markdown."""
    parts = [f"# {document.title}", *map(_markdown, document.blocks)]
    for one in document.sections:
        parts += [f"## {one.title}", *map(_markdown, one.blocks)]
    return "\n\n".join(parts) + "\n"


def to_html(document: Document, folder: Path) -> str:
    """Renders a document as an HTML page that needs no other file.

    `folder` holds the pictures. Raises OSError if one of them is missing.
    """
    body = [element("h1", document.title)]
    body += [_html(block, folder) for block in document.blocks]
    body += [
        page.section(one.title, *(_html(block, folder) for block in one.blocks))
        for one in document.sections
    ]
    return page.document(document.title, body)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], labels: int = 1) -> str:
    """Renders a table as GitHub Markdown. All columns but the first `labels` are for numbers."""
    rule = ["---"] * labels + ["---:"] * (len(header) - labels)
    lines = [[_cell(cell) for cell in row] for row in (header, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")


def _markdown(block: Block) -> str:
    match block:
        case Table(header, rows):
            return markdown_table(header, rows)
        case Picture(file, caption):
            return f"![{page.words(Path(file).stem)}]({file})\n\n{caption}"
        case Items(texts):
            return "\n".join(f"- {text}" for text in texts)
        case Code(text):
            return f"```bash\n{text}\n```"
    return block


def _html(block: Block, folder: Path) -> Html:
    match block:
        case Table(header, rows):
            cells = [[_lines(cell) for cell in row] for row in rows]
            return page.table([_lines(title) for title in header], cells)
        case Picture(file, caption):
            with Image.open(folder / file) as picture:
                shown = page.image(np.asarray(picture.convert("RGB")), caption)
            return element("figure", shown, element("figcaption", _text(caption)))
        case Items(texts):
            return element("ul", *(element("li", _text(text)) for text in texts))
        case Code(text):
            return element("pre", text)
    return element("p", _text(block))


def _lines(cell: str) -> Html:
    """A cell: its first line, and the others below it in small print."""
    first, *others = map(_text, cell.split("\n"))
    return Html("".join([first, *(element("span", line) for line in others)]))


def _text(text: str) -> Html:
    """Escapes a text and marks its code and what is strong."""
    marked = re.sub(r"`([^`]*)`", r"<code>\1</code>", page.escape(text))
    return Html(re.sub(r"\*\*([^*]*)\*\*", r"<strong>\1</strong>", marked))
