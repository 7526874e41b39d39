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

from daad_jax.config import DataConfig
from daad_jax.data import cache as cache_lib
from daad_jax.data import containers
from daad_jax.data import decode as decode_lib
from daad_jax.data.bad_files import BadFiles
from daad_jax.data.dataset import ImageSet, Split
from daad_jax.data.frame import input_shape
from daad_jax.data.masks import PackedMask
from daad_jax.errors import BadFileError, DataError
from daad_jax.runtime import memory

_FORMAT = 3  # version of the cache entries; increase it when the same files give other pixels
_THREADS = min(8, os.cpu_count() or 1)
_CHUNK = 256

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class EncodedImages:
    """Images of one split, not yet decoded.

    Attributes:
        names: ``n`` unique names for display.
        kinds: ``n`` defect types; "good" for a normal image.
        places: ``n`` names for error messages, for example a file's path.
        read: takes an image's index and returns the bytes of its file or its uint8 pixels
            ``(H, W, C)``. It may raise `BadFileError` and is called from several threads.
        masks: n masks at the pictures' own sizes, or None.
    """

    names: list[str]
    kinds: list[str]
    places: list[str]
    read: Callable[[int], bytes | np.ndarray]
    masks: list[PackedMask] | None = None

    def take(self, indices: np.ndarray) -> "EncodedImages":
        """Returns the images at some indices, int ``(m,)``."""
        return EncodedImages(
            names=[self.names[index] for index in indices],
            kinds=[self.kinds[index] for index in indices],
            places=[self.places[index] for index in indices],
            read=lambda position: self.read(int(indices[position])),
            masks=None if self.masks is None else [self.masks[index] for index in indices],
        )

    def decode(self, index: int, content: bytes | np.ndarray, config: DataConfig) -> np.ndarray:
        """Decodes and resizes one image.

        `content` is what `read` returned for `index`. Returns uint8 of the shape
        `daad_jax.data.frame.input_shape`. Raises BadFileError, which names the image, if the bytes
        are not a complete image.
        """
        if isinstance(content, bytes):
            return decode_lib.decode_image(content, self.places[index], config)
        return decode_lib.resize_array(content, config)


def load_normal(
    encoded: EncodedImages, split: Split, config: DataConfig, cache: Path | None, bad: BadFiles
) -> tuple[ImageSet, ImageSet]:
    """Decodes and resizes the training and the calibration images that `hold_out` chose.

    Each part is one array, which can be memory-mapped. `encoded` holds all normal images in the
    order of their names. `cache` and `bad` are as in `load_images`, and so are the errors.
    """
    return (
        load_images(encoded.take(split.train), config, cache, bad),
        load_images(encoded.take(split.calibration), config, cache, bad),
    )


def load_images(
    encoded: EncodedImages, config: DataConfig, cache: Path | None, bad: BadFiles
) -> ImageSet:
    """Decodes and resizes images, and leaves out those that cannot be read or decoded.

    `bad` collects the images that are left out. An array above `data.memory_limit_mb` is kept in a
    file in `cache`, memory-mapped and read-only, so the same bytes with the same config are decoded
    only once. If `cache` is None it stays in memory. Raises DataError if `bad` raises it, or if a
    file changes while it is read.
    """
    shape = (len(encoded.names), *input_shape(config))
    if cache is None or int(np.prod(shape)) <= config.memory_limit_mb << 20:
        pixels, kept = _load_in_memory(encoded, config, cache, shape, bad)
    else:
        pixels, kept = _load_mapped(encoded, config, cache, shape, bad)
    masks = encoded.masks
    return ImageSet(
        pixels,
        [encoded.names[index] for index in kept],
        [encoded.kinds[index] for index in kept],
        None if masks is None else [masks[index] for index in kept],
    )


def _load_in_memory(
    encoded: EncodedImages,
    config: DataConfig,
    cache: Path | None,
    shape: tuple[int, ...],
    bad: BadFiles,
) -> tuple[np.ndarray, list[int]]:
    """Returns the decoded images and their indices."""

    def decode(index: int) -> np.ndarray:
        return encoded.decode(index, _read(encoded, index, bad), config)

    _check_memory(shape, cache)
    pixels = np.empty(shape, np.uint8)
    kept: list[int] = []
    for index, result in enumerate(in_threads(decode, shape[0], "decoding")):
        if isinstance(result, BadFileError):
            bad.add(result)
        else:
            pixels[len(kept)] = result
            kept.append(index)
    return pixels[: len(kept)], kept


def _check_memory(shape: tuple[int, ...], cache: Path | None) -> None:
    """Raises an error before the decoding, which could take hours, if the result cannot fit."""
    needed, available = int(np.prod(shape)), memory.available()
    if needed > available:
        folder = "" if cache else "and set data.cache_dir "
        raise DataError(
            f"data.memory_limit_mb: {shape[0]} decoded images need {needed >> 20} MiB of memory "
            f"and {available >> 20} are available; lower it below {needed >> 20} {folder}to keep "
            "them in a cache on the disk, or lower data.image_size"
        )


def _load_mapped(
    encoded: EncodedImages, config: DataConfig, cache: Path, shape: tuple[int, ...], bad: BadFiles
) -> tuple[np.ndarray, list[int]]:
    """Returns the memory-mapped images and their indices. Builds the cache entry if needed."""
    digests = _hash_all(encoded, bad)
    readable, key = list(digests), _key(digests.values(), config)
    shape = (len(readable), *shape[1:])

    def decode(position: int) -> np.ndarray:
        index = readable[position]
        return encoded.decode(index, _read_again(encoded, index, digests[index]), config)

    def decode_all() -> Iterator[np.ndarray | str]:
        for result in in_threads(decode, len(readable), "decoding"):
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
    kept = [index for at, index in enumerate(readable) if at not in entry.left_out]
    return entry.images, kept


def _hash_all(encoded: EncodedImages, bad: BadFiles) -> dict[int, bytes]:
    """Returns a hash of the bytes of each readable image, by index."""
    digests = {}
    count = len(encoded.names)
    results = in_threads(lambda index: _hash(_read(encoded, index, bad)), count, "checking")
    for index, result in enumerate(results):
        if isinstance(result, BadFileError):
            bad.add(result)
        else:
            digests[index] = result
    return digests


def _read(encoded: EncodedImages, index: int, bad: BadFiles) -> bytes | np.ndarray:
    content = encoded.read(index)
    if isinstance(content, bytes) and containers.further_frames(content):
        bad.note(containers.FURTHER, encoded.places[index])
    return content


def _read_again(encoded: EncodedImages, index: int, digest: bytes) -> bytes | np.ndarray:
    """Reads an image that was hashed before, so that a cache entry always fits its key.

    Raises DataError if the bytes have changed.
    """
    try:
        content = encoded.read(index)
        changed = _hash(content) != digest
    except BadFileError:
        changed = True
    if changed:
        raise DataError(
            f"{encoded.places[index]}: changed while the images were read; start again when "
            "nothing writes to it"
        )
    return content


def _hash(content: bytes | np.ndarray) -> bytes:
    shape = b"" if isinstance(content, bytes) else repr(content.shape).encode()
    return hashlib.blake2b(shape + bytes(content), digest_size=32).digest()


def _key(digests: Iterable[bytes], config: DataConfig) -> str:
    """A hash of everything that determines the pixels."""
    settings = {
        "format": _FORMAT,
        "pillow": PIL.__version__,
        "size": config.picture_size,
        "channels": config.channels,
        "resize": config.resize,
        "brightness": config.brightness,
        "fit": config.fit,
        "ignore": decode_lib.ignored_region(config),
        "value_range": config.value_range,
    }
    total = hashlib.blake2b(json.dumps(settings).encode(), digest_size=16)
    for digest in digests:
        total.update(digest)
    return total.hexdigest()


def in_threads(
    function: Callable[[int], _Result], count: int, description: str
) -> Iterator[_Result | BadFileError]:
    """Yields ``function(0)`` to ``function(count - 1)`` in order, with a progress bar.

    If a call raises `BadFileError`, the error is yielded in place of the result.
    """

    def attempt(index: int) -> _Result | BadFileError:
        try:
            return function(index)
        except BadFileError as error:
            return error

    bar = tqdm(total=count, desc=description, unit="image", disable=None, leave=False, delay=1)
    with ThreadPoolExecutor(_THREADS) as pool, bar:
        # In chunks: otherwise the pool would run arbitrarily far ahead of a slow consumer.
        for start in range(0, count, _CHUNK):
            for result in pool.map(attempt, range(start, min(start + _CHUNK, count))):
                yield result
                bar.update()
