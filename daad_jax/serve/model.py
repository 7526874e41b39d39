"""An exported file, ready to answer: pictures are checked and prepared, batches are scored."""

import contextlib
import threading
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from daad_jax.config import DataConfig
from daad_jax.data import decode, frame
from daad_jax.data.pictures import read_header
from daad_jax.errors import BadFileError, DataError
from daad_jax.exported import ExportedDetector, ExportError, load_exported

# Each scan of a progressive JPEG goes over all of its pixels; encoders write about ten.
_JPEG, _SCAN, _MOST_SCANS = b"\xff\xd8\xff", b"\xff\xda", 100
_LARGE = 8_000_000  # pixels; decoding takes up to 30 bytes for each
_one_large = threading.Lock()

_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


class TooLargeError(BadFileError):
    """A picture has more pixels than the service decodes."""


class Prepared(NamedTuple):
    """A picture as the model takes it, uint8 ``(H, W, C)``, and the part of it that it fills."""

    pixels: np.ndarray
    box: frame.Box


class Scored(NamedTuple):
    """The scores of one picture, as `daad_jax.exported.Result` has them of several.

    `calibrated_score`, `p_value` and `defective` are None without a threshold. `anomaly_map` is
    float32 ``(H, W)`` of the model's size.
    """

    decision_score: float
    calibrated_score: float | None
    p_value: float | None
    defective: bool | None
    anomaly_map: np.ndarray


class Model:
    """An exported file in memory. Several threads may use it."""

    def __init__(self, path: Path, detector: ExportedDetector) -> None:
        """Takes a file and what was loaded from it; `load` does both.

        Attributes:
            path: the file.
            metadata: what the file says of itself, and its ``hash``.
            batch_sizes: the sizes of batches that are compiled, ascending.
            difference: how far its reference scores are from those in the file.
        """
        self.path, self.metadata, self._detector = path, detector.metadata, detector
        self.batch_sizes, self.difference = detector.batch_sizes, detector.difference
        resize, size = self.metadata["resize"], self.metadata["image_size"]
        found = resize["value_range"]
        self._config = DataConfig(
            image_size=(size[0], size[1]),
            channels=self.metadata["channels"],
            fit=resize["fit"],
            value_range=found if found == "auto" else (found[0], found[1]),
        )

    @property
    def hash(self) -> str:
        """The first 12 digits of the file's hash."""
        return str(self.metadata["hash"])[:12]

    def prepare(self, content: bytes, name: str, most_pixels: int) -> Prepared:
        """Decodes and resizes one picture as in training.

        `content` is the bytes of a PNG, JPEG, BMP, TIFF or WebP file. Raises TooLargeError by the
        file's header, before anything is decoded, and BadFileError if the file cannot be used. Both
        name the picture by `name`.
        """
        header = read_header(content)
        if header is not None and header.size[0] * header.size[1] > most_pixels:
            width, height = header.size
            reason = f"has {width} x {height} pixels; send at most {most_pixels:,}"
            raise TooLargeError(name, reason)
        if content.startswith(_JPEG) and content.count(_SCAN) > _MOST_SCANS:
            raise BadFileError(name, f"has more than {_MOST_SCANS} scans; save it again")
        large = header is None or header.size[0] * header.size[1] > _LARGE
        try:
            with _one_large if large else contextlib.nullcontext():
                picture = decode.decode_picture(content, name, self._config)
                pixels = self._detector.prepare(np.asarray(picture))  # upright, without metadata
        except BadFileError as error:
            if isinstance(error.__cause__, _BOMBS):
                raise TooLargeError(name, error.reason) from error
            raise
        except ExportError as error:
            raise BadFileError(name, str(error)) from error
        return Prepared(pixels, frame.picture_box((picture.height, picture.width), self._config))

    def score(self, pixels: np.ndarray) -> list[Scored]:
        """Scores n >= 1 prepared pictures, uint8 ``(n, H, W, C)``."""
        result = self._detector.score(pixels)
        columns = [
            [None] * len(pixels) if column is None else column.tolist()
            for column in (
                result.decision_score,
                result.calibrated_score,
                result.p_value,
                result.defective,
            )
        ]
        return [Scored(*row) for row in zip(*columns, result.anomaly_map, strict=True)]


def load(path: Path) -> Model:
    """Loads an exported file, checks it, and compiles it for each of its batch sizes.

    Raises DataError, which names the file, if it cannot be used.
    """
    try:
        model = Model(path, load_exported(path))
    except ExportError as error:
        raise DataError(str(error)) from error
    for size in model.batch_sizes:
        try:
            model.score(np.zeros((size, *model.metadata["input_shape"]), np.uint8))
        except jax.errors.JaxRuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{path}: cannot run here in batches of {size} ({reason})") from error
    return model
