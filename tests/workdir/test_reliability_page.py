"""docs/reliability.md names tests and files that exist."""

import re

from tests.processes import ROOT


def test_the_page_names_tests_and_files_that_exist():
    page = (ROOT / "docs" / "reliability.md").read_text()
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    names = set(re.findall(r"`(test_\w+)`", page))
    paths = set(re.findall(r"`(tests/[\w/.]+)`", page))
    assert len(names) > 40
    assert [name for name in names if f"def {name}(" not in tests] == []
    assert [path for path in paths if not (ROOT / path).exists()] == []
