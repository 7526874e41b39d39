"""From encoded images to uint8 arrays, in memory or memory-mapped."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import PIL
from tqdm import tqdm

from daad_jax.config import DataConfig
from daad_jax.data import cache as cache_lib
from daad_jax.data import images
from daad_jax.data.dataset import ImageSet

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
        read: takes an image's index and returns its bytes; called from several threads.
    """

    names: list[str]
    kinds: list[str]
    places: list[str]
    read: Callable[[int], bytes]


def load_images(encoded: EncodedImages, config: DataConfig, cache: Path | None) -> ImageSet:
    """Decodes and resizes images.

    Args:
        encoded: the images.
        config: size, channels, filter and the memory limit.
        cache: folder for arrays beyond the memory limit; None keeps all in memory.

    Returns:
        The images, without masks. Those beyond the limit are memory-mapped, read-only; the same
        bytes under the same config are decoded once.

    Raises:
        DataError: naming the first image that is damaged or cannot be read.
    """
    shape = (len(encoded.names), config.image_size, config.image_size, config.channels)
    if cache is None or int(np.prod(shape)) <= config.memory_limit_mb << 20:
        return _load_in_memory(encoded, config, shape)
    key, sizes = _fingerprint(encoded, config)
    pixels = cache_lib.open_entry(cache, key, shape)
    if pixels is None:

        def decode(index: int) -> np.ndarray:
            return _decode(encoded, index, encoded.read(index), config)

        pixels = cache_lib.build_entry(cache, key, shape, _in_threads(decode, shape[0], "decoding"))
    return ImageSet(pixels, encoded.names, sizes, encoded.kinds)


def _load_in_memory(encoded: EncodedImages, config: DataConfig, shape: tuple[int, ...]) -> ImageSet:
    def decode(index: int) -> tuple[np.ndarray, int]:
        content = encoded.read(index)
        return _decode(encoded, index, content, config), len(content)

    pixels, sizes = np.empty(shape, np.uint8), np.zeros(shape[0], np.int64)
    for index, result in enumerate(_in_threads(decode, shape[0], "decoding")):
        pixels[index], sizes[index] = result
    return ImageSet(pixels, encoded.names, sizes, encoded.kinds)


def _decode(encoded: EncodedImages, index: int, content: bytes, config: DataConfig) -> np.ndarray:
    return images.decode_image(
        content,
        encoded.places[index],
        size=config.image_size,
        channels=config.channels,
        resize=config.resize,
        brightness=config.brightness,
    )


def _fingerprint(encoded: EncodedImages, config: DataConfig) -> tuple[str, np.ndarray]:
    """A hash of all that decides the pixels, and the images' sizes in bytes."""

    def digest(index: int) -> tuple[bytes, int]:
        content = encoded.read(index)
        return hashlib.blake2b(content, digest_size=32).digest(), len(content)

    decides = {
        "format": _FORMAT,
        "pillow": PIL.__version__,
        "size": config.image_size,
        "channels": config.channels,
        "resize": config.resize,
        "brightness": config.brightness,
    }
    total = hashlib.blake2b(json.dumps(decides).encode(), digest_size=16)
    sizes = np.zeros(len(encoded.names), np.int64)
    for index, (own, size) in enumerate(_in_threads(digest, len(sizes), "checking")):
        total.update(own)
        sizes[index] = size
    return total.hexdigest(), sizes


def _in_threads(
    function: Callable[[int], _Result], count: int, description: str
) -> Iterator[_Result]:
    """Yields ``function(0)`` to ``function(count - 1)`` in order, with a progress bar."""
    bar = tqdm(total=count, desc=description, unit="image", disable=None, leave=False, delay=1)
    with ThreadPoolExecutor(_THREADS) as pool, bar:
        # In chunks, because the pool would otherwise run ahead of a slow consumer without bound.
        for start in range(0, count, _CHUNK):
            for result in pool.map(function, range(start, min(start + _CHUNK, count))):
                yield result
                bar.update()
