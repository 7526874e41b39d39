"""Any console, log or pipe can be written to."""

import io
import subprocess
import sys

import pytest

from daad_jax import cli
from tests.cli.test_cli import train_args
from tests.data.test_folder import make_category


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_names_that_the_console_lacks_are_no_obstacle(tmp_path, monkeypatch, encoding):
    make_category(tmp_path / "gr\u00f6\u00dfe", "\u691c\u67fb \u0394")
    files = {name: io.BytesIO() for name in ("stdout", "stderr")}
    for name, file in files.items():
        monkeypatch.setattr(sys, name, io.TextIOWrapper(file, encoding=encoding))
    args = train_args(tmp_path / "gr\u00f6\u00dfe", tmp_path / "w", category="\u691c\u67fb \u0394")
    assert cli.main(args) == 0
    assert cli.main(["evaluate", f"--workdir={tmp_path}/\u691c"]) == 2
    printed = {name: file.getvalue().decode(encoding) for name, file in files.items()}
    assert "\\u691c\\u67fb \\u0394" in printed["stdout"]
    assert printed["stderr"].splitlines()[-1].startswith("error: ")
    assert "\\u691c: is not a folder" in printed["stderr"]


def test_a_line_is_in_the_log_at_once():
    code = (
        "import sys, os; from daad_jax import cli; cli.guarded(lambda: (print('x'), os._exit(3)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.stdout.split(), done.returncode) == ([b"x"], 3)
