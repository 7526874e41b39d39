"""From encoded images to uint8 arrays, in memory or memory-mapped."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import PIL
from tqdm import tqdm

from daad_jax import host_memory
from daad_jax.config import DataConfig
from daad_jax.data import cache as cache_lib
from daad_jax.data import images
from daad_jax.data.bad_files import BadFiles
from daad_jax.data.dataset import ImageSet
from daad_jax.errors import BadFileError, DataError

_FORMAT = 1  # of a cache entry; raised when the same files come to give other pixels
_THREADS = min(8, os.cpu_count() or 1)
_CHUNK = 256

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class EncodedImages:
    """Images of one split as the bytes of image files.

    Attributes:
        names: as in `ImageSet`.
        kinds: as in `ImageSet`.
        places: what an error message calls each image, a file's path for example.
        read: takes an image's index and returns its bytes, or raises `BadFileError`; called from
            several threads.
        masks: as in `ImageSet`.
    """

    names: list[str]
    kinds: list[str]
    places: list[str]
    read: Callable[[int], bytes]
    masks: np.ndarray | None = None


def load_images(
    encoded: EncodedImages, config: DataConfig, cache: Path | None, bad: BadFiles
) -> ImageSet:
    """Decodes and resizes images.

    Args:
        encoded: the images.
        config: size, channels, filter and the memory limit.
        cache: folder for arrays beyond the memory limit; None keeps all in memory.
        bad: what becomes of images that cannot be read or decoded.

    Returns:
        The images, without those that went to `bad`. Those beyond the limit are memory-mapped,
        read-only; the same bytes under the same config are decoded once.

    Raises:
        DataError: what `bad` raises, or when a file changes while it is read.
    """
    shape = (len(encoded.names), config.image_size, config.image_size, config.channels)
    if cache is None or int(np.prod(shape)) <= config.memory_limit_mb << 20:
        pixels, sizes = _load_in_memory(encoded, config, shape, bad)
    else:
        pixels, sizes = _load_mapped(encoded, config, cache, shape, bad)
    kept = list(sizes)
    masks = encoded.masks
    return ImageSet(
        pixels,
        [encoded.names[index] for index in kept],
        np.array([sizes[index] for index in kept], np.int64),
        [encoded.kinds[index] for index in kept],
        masks if masks is None or len(kept) == len(masks) else masks[kept],
    )


def _load_in_memory(
    encoded: EncodedImages, config: DataConfig, shape: tuple[int, ...], bad: BadFiles
) -> tuple[np.ndarray, dict[int, int]]:
    """The images that can be used, and their sizes in bytes by index."""

    def decode(index: int) -> tuple[np.ndarray, int]:
        content = encoded.read(index)
        return _decode(encoded, index, content, config), len(content)

    _check_memory(shape)
    pixels = np.empty(shape, np.uint8)
    sizes: dict[int, int] = {}
    for index, result in enumerate(_in_threads(decode, shape[0], "decoding")):
        if isinstance(result, BadFileError):
            bad.add(result)
        else:
            pixels[len(sizes)], sizes[index] = result
    return pixels[: len(sizes)], sizes


def _check_memory(shape: tuple[int, ...]) -> None:
    """Refuses before hours of decoding what the system would end the process for."""
    needed, available = int(np.prod(shape)), host_memory.available()
    if needed > available:
        raise DataError(
            f"data.memory_limit_mb: {shape[0]} decoded images need {needed >> 20} MiB of memory "
            f"and {available >> 20} are available; lower it below {needed >> 20} to keep them in a "
            "cache on the disk, or lower data.image_size"
        )


def _load_mapped(
    encoded: EncodedImages,
    config: DataConfig,
    cache: Path,
    shape: tuple[int, ...],
    bad: BadFiles,
) -> tuple[np.ndarray, dict[int, int]]:
    """As `_load_in_memory`, from an entry of the cache that is made where it is missing."""
    digests, sizes = _digest(encoded, bad)
    readable, key = list(digests), _key(digests.values(), config)
    shape = (len(readable), *shape[1:])

    def decode(position: int) -> np.ndarray:
        index = readable[position]
        return _decode(encoded, index, _read_again(encoded, index, digests[index]), config)

    def decode_all() -> Iterator[np.ndarray | str]:
        for result in _in_threads(decode, len(readable), "decoding"):
            if isinstance(result, BadFileError):
                bad.add(result)
                yield result.reason
            else:
                yield result

    entry = cache_lib.open_entry(cache, key, shape)
    if entry is None:
        entry = cache_lib.build_entry(cache, key, shape, decode_all())
    else:
        for position, reason in entry.left_out.items():
            bad.add(BadFileError(encoded.places[readable[position]], reason))
    left_out = {readable[position] for position in entry.left_out}
    return entry.images, {index: sizes[index] for index in readable if index not in left_out}


def _decode(encoded: EncodedImages, index: int, content: bytes, config: DataConfig) -> np.ndarray:
    return images.decode_image(
        content,
        encoded.places[index],
        size=config.image_size,
        channels=config.channels,
        resize=config.resize,
        brightness=config.brightness,
    )


def _digest(encoded: EncodedImages, bad: BadFiles) -> tuple[dict[int, bytes], dict[int, int]]:
    """A hash of the bytes of each image that can be read, and their number, by index."""

    def digest(index: int) -> tuple[bytes, int]:
        content = encoded.read(index)
        return _hash(content), len(content)

    digests, sizes = {}, {}
    for index, result in enumerate(_in_threads(digest, len(encoded.names), "checking")):
        if isinstance(result, BadFileError):
            bad.add(result)
        else:
            digests[index], sizes[index] = result
    return digests, sizes


def _read_again(encoded: EncodedImages, index: int, digest: bytes) -> bytes:
    """Reads what was hashed, so that an entry never holds other pixels than its key says.

    Raises:
        DataError: if the image is another one by now.
    """
    try:
        content = encoded.read(index)
        changed = _hash(content) != digest
    except BadFileError:
        changed = True
    if changed:
        raise DataError(
            f"{encoded.places[index]}: changed while the images were read; start again once "
            "nothing writes there"
        )
    return content


def _hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=32).digest()


def _key(digests: Iterable[bytes], config: DataConfig) -> str:
    """A hash of all that decides the pixels."""
    decides = {
        "format": _FORMAT,
        "pillow": PIL.__version__,
        "size": config.image_size,
        "channels": config.channels,
        "resize": config.resize,
        "brightness": config.brightness,
    }
    total = hashlib.blake2b(json.dumps(decides).encode(), digest_size=16)
    for digest in digests:
        total.update(digest)
    return total.hexdigest()


def _in_threads(
    function: Callable[[int], _Result], count: int, description: str
) -> Iterator[_Result | BadFileError]:
    """Yields ``function(0)`` to ``function(count - 1)`` in order, with a progress bar.

    In place of a result it yields the `BadFileError` that was raised.
    """

    def attempt(index: int) -> _Result | BadFileError:
        try:
            return function(index)
        except BadFileError as error:
            return error

    bar = tqdm(total=count, desc=description, unit="image", disable=None, leave=False, delay=1)
    with ThreadPoolExecutor(_THREADS) as pool, bar:
        # In chunks, because the pool would otherwise run ahead of a slow consumer without bound.
        for start in range(0, count, _CHUNK):
            for result in pool.map(attempt, range(start, min(start + _CHUNK, count))):
                yield result
                bar.update()
