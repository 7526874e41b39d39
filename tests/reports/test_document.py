import numpy as np
from PIL import Image

from daad_jax.reports.document import (
    Code,
    Document,
    Items,
    Picture,
    Section,
    Table,
    to_html,
    to_markdown,
)

TABLE = Table(["category", "A | B"], [["screw\nnot on disk", "<0.5>"]])
DOCUMENT = Document(
    "Title", ["Some `code` and **strong** <words>.", Code("run --it")],
    [Section("Part", [TABLE, Items(["one", "two"]), Picture("images/a.png", "What `it` shows.")])],
)  # fmt: skip


def test_a_document_as_markdown():
    assert to_markdown(DOCUMENT) == (
        "# Title\n\nSome `code` and **strong** <words>.\n\n```bash\nrun --it\n```\n\n## Part\n\n"
        "| category | A \\| B |\n| --- | ---: |\n| screw<br>not on disk | <0.5> |\n\n- one\n"
        "- two\n\n"
        "![a](images/a.png)\n\nWhat `it` shows.\n"
    )


def test_a_document_as_html(tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "images/a.png")
    html = to_html(DOCUMENT, tmp_path)
    assert "<p>Some <code>code</code> and <strong>strong</strong> &lt;words&gt;.</p>" in html
    assert "<td>screw<span>not on disk</span></td><td>&lt;0.5&gt;</td>" in html
    assert "<figcaption>What <code>it</code> shows.</figcaption>" in html
    assert "<li>two</li>" in html
    assert "data:image/png;base64," in html
    assert "<pre>run --it</pre>" in html
