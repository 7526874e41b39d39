"""The command ``serve``: its messages, and one service from its start to its end."""

import builtins
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import serve as load
from daad_jax.cli import main
from daad_jax.cli.serve import TOKEN_VARIABLE
from daad_jax.exported import load_exported
from tests.serve.services import EXPORTED, picture, send


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "serve: give one exported file, serve part.daad"),
        (["a.daad", "b.daad"], "serve: give one exported file"),
        (["no.daad", "--port=0"], "no.daad: cannot be read"),
        (["a.daad", "--queue=0"], "flag --queue=0: 0 is not a positive integer"),
        (["a.daad", "--queue=9"], "--max_pictures: must be at most --queue"),
        (["a.daad", "--port=70000"], "flag --port=70000: 70000 is not an integer in the range"),
        (["a.daad", "--host=nowhere.invalid"], "--port: nowhere.invalid:8000 cannot be used"),
        (["a.daad", "--token_file=none"], "--token_file: none cannot be read"),
        (["a.daad", "--token_file=empty"], "--token_file: empty: must hold one word"),
        (["a.daad", "--token=secret"], "--token: no such flag"),
    ],
)
def test_a_wrong_command_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text(" \n")
    assert main(["serve", *arguments, f"--cache_dir={tmp_path / 'cache'}"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_port_in_use_is_known_before_the_file_is_read(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "none.daad", f"--port={port}"]) == 2
    assert "Address already in use" in capsys.readouterr().err


def test_a_token_of_the_environment_must_be_a_word(monkeypatch, capsys):
    monkeypatch.setenv(TOKEN_VARIABLE, "two words")
    assert main(["serve", "none.daad"]) == 2
    assert f"{TOKEN_VARIABLE}: must hold one word of ASCII characters" in capsys.readouterr().err


def test_another_address_without_a_token_is_a_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    arguments = ["serve", "none.daad", "--port=0", "--host=0.0.0.0", f"--cache_dir={tmp_path}"]
    assert main(arguments) == 2
    assert "warning: --host: all who reach 0.0.0.0 can use the service" in capsys.readouterr().err
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    assert main(arguments) == 2
    assert "warning" not in capsys.readouterr().err


def test_without_the_extra_a_line_says_what_to_install(monkeypatch, capsys):
    real = builtins.__import__

    def missing(name, *arguments):
        if name == "uvicorn":
            raise ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn")
        return real(name, *arguments)

    for name in [one for one in sys.modules if one.startswith("daad_jax.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", missing)
    assert main(["serve", "part.daad"]) == 2
    assert capsys.readouterr().err == "error: serve: needs pip install 'daad_jax[serve]'\n"


def test_a_service_from_start_to_end():
    """Its scores are those of the exported file, and SIGTERM ends it with 0."""
    cache = os.environ["JAX_COMPILATION_CACHE_DIR"]
    service = load.start(str(EXPORTED), f"--cache_dir={cache}")
    try:
        files = [picture(value, (20, 30)) for value in (10, 200)]
        found = [send(service.port, "POST", "/v1/predict", file)[2][0] for file in files]
        expected = load_exported(EXPORTED).score(files)
        np.testing.assert_allclose(
            [row["score"] for row in found], expected.decision_score, rtol=1e-5
        )
        assert [row["defective"] for row in found] == expected.defective.tolist()
    finally:
        assert load.stop(service, signal.SIGTERM) == 0


def test_it_needs_no_flax(tmp_path):
    code = (
        "import sys; from daad_jax.cli import main; main(['serve', 'none.daad', '--port=0']); "
        "print('flax' in sys.modules, 'optax' in sys.modules, 'daad_jax.serve.app' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "False False True\n", result.stderr
