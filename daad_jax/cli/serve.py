"""``serve``: an HTTP service and a page around an exported file."""

import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from daad_jax.cli import flags as own_flags
from daad_jax.errors import ConfigError, warn
from daad_jax.runtime import compiler
from daad_jax.runtime.files import user_path

TOKEN_VARIABLE = "DAAD_JAX_TOKEN"
_EXTRA = ("fastapi", "httptools", "multipart", "prometheus_client", "python_multipart", "uvicorn")


def run(argv: Sequence[str]) -> None:
    """Serves an exported file until SIGTERM or SIGINT, which end with exit code 0.

    `argv` is "serve", the file and flags. Raises UserError if the flags, the address or the file
    cannot be used, or if the extra is not installed.
    """
    values = _define_flags()
    words = own_flags.parse_flags(values, argv, positional=True)
    if len(words) != 1:
        raise ConfigError("serve: give one exported file, serve part.daad")
    try:
        from daad_jax.serve import limits, model, server, service
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        raise ConfigError("serve: needs pip install 'daad_jax[serve]'") from error
    chosen = limits.Limits(
        body_bytes=values.max_body_mib << 20,
        pixels=values.max_megapixels * 1_000_000,
        pictures=values.max_pictures,
        queue=values.queue,
        seconds=values.timeout,
    )
    if chosen.pictures > chosen.queue:
        raise ConfigError("--max_pictures: must be at most --queue")
    token = _token(values.token_file)
    bound = server.bind(values.host, values.port)  # an address in use is known before the loading
    if not (_is_loopback(values.host) or token):
        warn(f"--host: all who reach {values.host} can use the service; set --token_file")
    compiler.keep_programs(values.cache_dir)
    path = user_path(words[0])
    with server.Reload() as reload:  # before the file is read
        loaded = model.load(path)
        host, port = bound.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        print(f"serving {path} ({loaded.hash}) on http://{shown}:{port}", flush=True)
        server.serve(service.Service(loaded, chosen), bound, token, reload)


def _define_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    values.set_gnu_getopt()  # flags may follow the file
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen at.", flag_values=values)
    port = "Port; 0 takes a free one."
    flags.DEFINE_integer("port", 8000, port, 0, 65535, flag_values=values)
    file = f"File with the token that clients must send; or set {TOKEN_VARIABLE}."
    flags.DEFINE_string("token_file", None, file, flag_values=values)
    for name, default, text in (
        ("max_body_mib", 32, "MiB of a request."),
        ("max_megapixels", 50, "Million pixels of a picture."),
        ("max_pictures", 64, "Pictures of a request."),
        ("queue", 256, "Pictures that may wait; more are answered 503."),
        ("timeout", 30, "Seconds for a body, and for an answer."),
    ):
        flags.DEFINE_integer(name, default, text, 1, flag_values=values)
    cache = "Folder of compiled programs, for a fast restart."
    flags.DEFINE_string("cache_dir", None, cache, flag_values=values)
    return values


def _token(file: str | None) -> str | None:
    """The token of a file or of the environment; None if none is asked for."""
    if file is None:
        token, source = os.environ.get(TOKEN_VARIABLE), TOKEN_VARIABLE
    else:
        token, source = _read(user_path(file)), f"--token_file: {file}"
    if token is None:
        return None
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(f"{source}: must hold one word of ASCII characters")
    return token


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token_file: {path} cannot be read; give another") from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
