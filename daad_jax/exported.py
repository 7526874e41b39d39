"""Loads and runs a model that ``daad-jax export`` wrote, without the rest of the package.

This file needs JAX and NumPy only, and can be copied beside the exported file. Pictures of other
sizes and picture files also need Pillow. The format of the file: docs/export.md.
"""

import dataclasses
import functools
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.export
import numpy as np

try:
    from PIL import Image, ImageOps
except ImportError:  # arrays of the model's size need no Pillow
    Image = ImageOps = None  # type: ignore[assignment]

FORMAT = 1
METADATA, PROGRAM, SUMS = "metadata.json", "program.vhlo", "SHA256SUMS"
REFERENCE, IGNORE, PARAMETERS = "reference.npy", "ignore.npy", "parameters/"
MAX_DIFFERENCE = 0.05
"""The largest `ExportedDetector.difference` that `load_exported` accepts."""
_LIMITS = {METADATA: 1 << 20, PROGRAM: 1 << 28, REFERENCE: 1 << 29, IGNORE: 1 << 28, SUMS: 1 << 22}
_MOST_PARTS, _MOST_BYTES = 10_000, 1 << 32
_MAX_BATCH = 4096
# Other calls could run any function that jaxlib has registered.
_CALL, _ALLOWED_CALL = "custom_call", "custom_call @shape_assertion("
_OPTIONS = ("xla_cpu_experimental_ynn_fusion_type",)  # other options could write files
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
_FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "area": 4}  # as in Pillow
_MAX_PIXELS, _TOO_MANY = 89_478_485, "has too many pixels to be decoded safely"  # as in Pillow
_BITS, _PHOTOMETRIC, _PLANES, _COLOUR_MAP, _SAMPLE_FORMAT = 258, 262, 284, 320, 339  # TIFF tags
_TINY = 1e-6


class ExportError(ValueError):
    """An exported file or a picture cannot be used. The text is one line that says why."""


class Result(NamedTuple):
    """What `ExportedDetector.score` returns for n images.

    Attributes:
        decision_score: float64 ``(n,)``, the score that is compared with the threshold.
        calibrated_score: float64 ``(n,)``, 0 for the middle held-out good picture and 1 at the
            threshold. This field and the next two are None if the model has no threshold.
        p_value: float64 ``(n,)`` in (0, 1], how often a good picture has a score this high.
        defective: bool ``(n,)``, whether the score is at or above the threshold.
        anomaly_map: float32 ``(n, H, W)`` at the model's image size.
    """

    decision_score: np.ndarray
    calibrated_score: np.ndarray | None
    p_value: np.ndarray | None
    defective: np.ndarray | None
    anomaly_map: np.ndarray


def load_exported(path: str | os.PathLike[str]) -> "ExportedDetector":
    """Reads an exported file, checks its hashes, and scores its reference pictures.

    Raises ExportError if the file cannot be read, is damaged, has a newer format, was not exported
    for this platform, or scores its reference pictures otherwise than where it was made.
    """
    name = os.fspath(path)
    try:
        parts = _read(name)
        metadata: dict[str, Any] = json.loads(parts[METADATA])
        if (own := metadata["format"]) > FORMAT:
            newer = "copy exported.py of a newer daad_jax"
            raise ExportError(f"has format {own}, and this module reads up to {FORMAT}; {newer}")
        metadata["hash"] = hashlib.sha256(parts[SUMS]).hexdigest()
        detector = ExportedDetector(metadata, parts)
    except ExportError as error:
        raise ExportError(f"{name}: {error}") from error
    except OSError as error:
        raise ExportError(f"{name}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # zipfile, NumPy and JAX raise many types on damaged bytes
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ExportError(f"{name}: is not a sound exported model ({reason})") from error
    if not detector.difference <= MAX_DIFFERENCE:
        raise ExportError(
            f"{name}: its reference pictures have other scores on this machine, by "
            f"{detector.difference:.2g} of the score's spread; export it again with this jax "
            f"({jax.__version__}; the file was made with {metadata['made_with']})"
        )
    return detector


class ExportedDetector:
    """An exported model, ready to score images. Several threads may use it.

    Attributes:
        metadata: what ``metadata.json`` of the file says, and the file's ``hash``.
        batch_sizes: the sizes of the batches that are compiled, ascending. A batch is filled up to
            the smallest that holds it.
        difference: the largest difference of the reference pictures' decision scores to those of
            the machine that exported them, divided by the score's spread on good pictures.
    """

    def __init__(self, metadata: dict[str, Any], parts: Mapping[str, bytes]) -> None:
        """Takes the parts of a file; `load_exported` reads them."""
        self.metadata, self.batch_sizes = metadata, tuple(sorted(metadata["batch_sizes"]))
        if not 1 <= self.batch_sizes[0] <= self.batch_sizes[-1] <= _MAX_BATCH:
            raise ValueError(f"batch sizes {self.batch_sizes}")
        self._shape = tuple(metadata["input_shape"])
        arrays = {name: _array(one) for name, one in parts.items() if name.endswith(".npy")}
        reference = arrays.pop(REFERENCE)
        self._preparation = Preparation(metadata, arrays.pop(IGNORE, None))
        self._parameters = {name.removesuffix(".npy"): one for name, one in arrays.items()}
        exported = _program(metadata["program"], parts[PROGRAM], self._parameters, self._shape)
        platform = jax.default_backend().replace("gpu", "cuda")
        if platform not in exported.platforms:
            raise ExportError(f"was exported for {', '.join(exported.platforms)}, not {platform}")
        self._parameters = jax.device_put(self._parameters)
        options = metadata["program"]["compiler_options"].get(platform, {})
        self._call = _compiled(exported, {k: options[k] for k in _OPTIONS if k in options})
        before = np.array(metadata["reference"]["decision_score"])
        after = self.score(reference).decision_score
        self.difference = float(np.max(np.abs(after - before)) / metadata["spread"])

    def score(self, images: Any) -> Result:
        """Scores images.

        `images` is a uint8 array ``(n, H, W, C)`` of the model's size, such as pictures that
        `prepare` returned, or a list of what `prepare` takes. Raises ExportError if one of them
        cannot be used, and ValueError for another type.
        """
        pixels = self._pixels(images)
        size = next((one for one in self.batch_sizes if one >= len(pixels)), self.batch_sizes[-1])
        parts = [
            self._score_batch(pixels[start : start + size], size)
            for start in range(0, len(pixels), size)
        ]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return Result(*(joined.get(name) for name in Result._fields))  # type: ignore[arg-type]

    def _score_batch(self, batch: np.ndarray, size: int) -> dict[str, np.ndarray]:
        count = len(batch)
        padded = np.concatenate([batch, np.repeat(batch[:1], size - count, axis=0)])
        with jax.enable_x64(True):  # scores are float64
            result = jax.device_get(self._call(self._parameters, padded))
        return {name: values[:count] for name, values in result.items()}

    def _pixels(self, images: Any) -> np.ndarray:
        if isinstance(images, (str, bytes, os.PathLike)) or getattr(images, "ndim", 4) < 4:
            raise ValueError("one image? put it into a list")
        fits = isinstance(images, np.ndarray) and images.shape[1:] == self._shape
        if fits and images.dtype == np.uint8 and len(images):
            return images
        prepared = [self.prepare(image) for image in images]
        if not prepared:
            raise ValueError("no images to score")
        return np.stack(prepared)

    def prepare(self, picture: Any) -> np.ndarray:
        """What `Preparation` makes of one picture; several threads may call it."""
        return self._preparation(picture)


class Preparation:
    """Decodes, converts and resizes pictures like the training images; needs Pillow."""

    def __init__(self, metadata: Mapping[str, Any], ignored: np.ndarray | None = None) -> None:
        """Takes the metadata of a file, and its mask of what is left out, bool ``(h, w)``."""
        self._size: tuple[int, int] = tuple(metadata["image_size"])
        self._shape: tuple[int, int, int] = tuple(metadata["input_shape"])
        self._channels, self._resize = metadata["channels"], metadata["resize"]
        self._filter, self._ignored = _FILTERS[self._resize["filter"]], ignored
        self._has_validity = self._shape[-1] != self._channels
        self._counts = functools.lru_cache(maxsize=16)(self._find_counts)

    def __call__(self, picture: Any) -> np.ndarray:
        """Prepares one picture.

        `picture` is a path, the bytes of a PNG, JPEG, BMP, TIFF or WebP file, a Pillow image, or a
        uint8 array ``(H, W)`` or ``(H, W, C)``, C 1 or 3, in 0 to 255. Brightness is not made equal
        here; the model does that itself.

        Returns uint8 of the shape ``input_shape`` in the metadata. Raises ExportError, which names
        the file, if the picture cannot be used or Pillow is missing.
        """
        if isinstance(picture, np.ndarray):
            _check_array(picture)
            if picture.shape == self._shape and not self._has_validity:
                return picture
        name = os.fspath(picture) if isinstance(picture, (str, os.PathLike)) else "picture"
        if Image is None:
            raise ExportError(f"{name}: needs Pillow to be converted; install pillow")
        try:
            image = _open(picture, self._resize["value_range"] == "auto")
            return self._place(_to_mode(image, self._channels, self._resize["value_range"]))
        except ExportError as error:
            raise ExportError(f"{name}: {error}") from error
        except Image.DecompressionBombError as error:
            raise ExportError(f"{name}: {_TOO_MANY}") from error
        except (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError) as error:
            reason = getattr(error, "strerror", None) or "it is damaged or no picture"
            raise ExportError(f"{name}: cannot be read ({reason})") from error

    def _place(self, image: Any) -> np.ndarray:
        """Resizes an image of mode "L" or "RGB" into the model's frame."""
        top, left, height, width = self._box(image.size[::-1])
        counts = self._counts(image.size[::-1]) if self._has_validity else None
        if image.size != (width, height):
            image = image.resize((width, height), self._filter)
        pixels = np.asarray(image).reshape(height, width, self._channels)
        if counts is None:
            return pixels
        placed = np.zeros(self._shape, np.uint8)
        placed[..., :-1] = np.rint(pixels[counts].mean(axis=0))
        inner = placed[top : top + height, left : left + width]
        inner[counts, :-1], inner[counts, -1] = pixels[counts], 255
        return placed

    def _box(self, picture: tuple[int, int]) -> tuple[int, int, int, int]:
        """Top, left, height and width of what a picture fills of the frame."""
        if self._resize["fit"] == "stretch":
            return (0, 0, *self._size)
        scale = min(self._size[0] / picture[0], self._size[1] / picture[1])
        height, width = (max(1, round(side * scale)) for side in picture)
        return (self._size[0] - height) // 2, (self._size[1] - width) // 2, height, width

    def _find_counts(self, picture: tuple[int, int]) -> np.ndarray:
        """Which pixels of a resized picture count, bool ``(height, width)`` of its box."""
        if self._ignored is not None:
            mask = Image.fromarray(self._ignored)
            ignored = np.asarray(mask.resize(picture[::-1], _FILTERS["nearest"]))
        else:
            ignored = np.zeros(picture, bool)
            for x, y, across, down in self._resize["ignore"]:
                rows = _touched(y, down, picture[0])
                ignored[rows, _touched(x, across, picture[1])] = True
        shares = Image.fromarray(ignored.astype(np.float32))
        shares = shares.resize(self._box(picture)[:1:-1], self._filter)
        counts = np.abs(np.asarray(shares)) < _TINY
        if not counts.any():
            raise ExportError("a picture of this size has no pixel that counts")
        return counts


def _read(name: str) -> dict[str, bytes]:
    """Reads the parts of a file, of bounded size, and compares their hashes."""
    parts: dict[str, bytes] = {}
    with zipfile.ZipFile(name) as file:
        entries = file.infolist()
        if len(entries) > _MOST_PARTS or sum(one.file_size for one in entries) > _MOST_BYTES:
            raise ValueError("too large")
        for entry in entries:
            own = entry.filename
            known = own in _LIMITS or (own.startswith(PARAMETERS) and own.endswith(".npy"))
            fits = entry.file_size <= _LIMITS.get(own, _MOST_BYTES) and not entry.compress_type
            if not known or own in parts or not fits:
                raise ExportError(f"{own!r} does not belong into an exported model")
            parts[own] = file.read(entry)
    sums = dict(line.split("  ", 1)[::-1] for line in parts[SUMS].decode().splitlines())
    if sums.keys() != parts.keys() - {SUMS}:
        raise ExportError(f"{SUMS} lists other parts than the file has; copy it again")
    for own, digest in sums.items():
        if hashlib.sha256(parts[own]).hexdigest() != digest:
            raise ExportError(f"{own} is damaged, its hash differs; copy the file again")
    return parts


def _program(
    about: Mapping[str, Any],
    code: bytes,
    parameters: Mapping[str, np.ndarray],
    shape: Sequence[int],
) -> jax.export.Exported:
    """Makes a callable of the StableHLO code.

    JAX's own file format needs a further package, so the code is put in place of that of another
    function with the same arguments and results.
    """
    (batch,) = jax.export.symbolic_shape("b")
    with jax.enable_x64(True):
        images = jax.ShapeDtypeStruct((batch, *shape), np.uint8)
        arrays = {k: jax.ShapeDtypeStruct(one.shape, one.dtype) for k, one in parameters.items()}

        def stand_in(_: Any, images: jax.Array) -> dict[str, jax.Array]:
            return {
                name: jax.numpy.zeros((images.shape[0], *sides), dtype)
                for name, (dtype, sides) in about["outputs"].items()
            }

        made = jax.export.export(jax.jit(stand_in), platforms=about["platforms"])(arrays, images)
    exported = dataclasses.replace(
        made,
        fun_name="daad_jax",
        mlir_module_serialized=code,
        calling_convention_version=about["calling_convention_version"],
        module_kept_var_idx=tuple(about["kept_arguments"]),
        uses_global_constants=about["uses_global_constants"],
    )
    text = exported.mlir_module()
    if text.count(_CALL) != text.count(_ALLOWED_CALL):
        raise ValueError("the program calls functions outside of it")
    return exported


def _compiled(exported: jax.export.Exported, options: dict[str, str]) -> Any:
    """The function with compiler options, without them if this jaxlib lacks them."""
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        options = {}
    return jax.jit(exported.call, compiler_options=options)


def _array(content: bytes) -> np.ndarray:
    """Reads an array in NumPy's format. Its header cannot ask for more memory than it has."""
    if np.lib.format.read_magic(file := io.BytesIO(content)) != (1, 0):
        raise ValueError("an array of another version of NumPy's format")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.kind not in "biuf" or fortran:
        raise ValueError(f"an array of {dtype}")
    return np.frombuffer(content, dtype, offset=file.tell()).reshape(shape)


def _check_array(array: np.ndarray) -> None:
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3))
    if array.dtype != np.uint8 or not shaped or array.size == 0:
        found = f"{array.dtype} {array.shape}"
        raise ExportError(f"an image is {found}, not uint8 (H, W), (H, W, 1) or (H, W, 3)")


def _open(picture: Any, whole_range: bool) -> Any:
    """Opens a picture with Pillow and turns it upright.

    Rare kinds of TIFF files, which Pillow does not decode as their tags say, are refused.
    """
    if isinstance(picture, np.ndarray):
        return Image.fromarray(picture[..., 0] if picture.shape[2:] == (1,) else picture)
    image = picture
    if not isinstance(picture, Image.Image):
        file = io.BytesIO(picture) if isinstance(picture, bytes) else picture
        image = Image.open(file, formats=_FORMATS)
    if image.width * image.height > _MAX_PIXELS:
        raise ExportError(_TOO_MANY)
    tile = getattr(image, "tile", None)
    stored = str(tile[0].args if tile else "")
    tags = getattr(image, "tag_v2", {})
    bits, kind = tags.get(_BITS, (8,))[0], tags.get(_SAMPLE_FORMAT, (1,))[0]
    odd_bits = bits not in (1, 8, 16) if kind == 1 else (kind, bits) != (3, 32)
    white_is_zero = bits > 8 and tags.get(_PHOTOMETRIC) == 0
    small_colours = 0 < max(tags.get(_COLOUR_MAP, (256,))) < 256
    planes = bits > 8 and tags.get(_PLANES) == 2
    if odd_bits or white_is_zero or small_colours or planes or "RGBa" in stored:
        raise ExportError("is an unusual TIFF file; convert it to PNG")
    if ";16" in stored and not whole_range and not image.mode.startswith("I"):
        raise ExportError("has colours of 16 bits; convert it to 8 bits or to grey")
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged metadata cannot spoil a picture
        return image


def _to_mode(image: Any, channels: int, value_range: Any) -> Any:
    """Converts a Pillow image to "RGB" or "L", over black where it is transparent."""
    if image.mode.startswith(("I;16", "F")):
        values, key = np.asarray(image), image.info.get("transparency")
        values = np.where(values == key, 0, values) if isinstance(key, int) else values
        image = Image.fromarray(_scale(values, image.mode == "F", value_range))
    elif image.mode == "I":
        raise ExportError("has grey values of 32 bits; convert it to 16 or 8 bits")
    elif image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[1]:
            image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
        image = image.convert("RGB")
    elif image.mode in ("CMYK", "LAB"):
        image = image.convert("RGB")
    return image.convert("RGB" if channels == 3 else "L")


def _scale(values: np.ndarray, is_float: bool, value_range: Any) -> np.ndarray:
    """Scales grey values of 16 bits, or floats, to uint8."""
    if value_range == "auto" and not is_float:
        return (values >> 8).astype(np.uint8)
    low, high = (0.0, 1.0) if value_range == "auto" else value_range
    if value_range == "auto" and np.mean((values < 0) | (values > 1)) > 0.01:
        raise ExportError("has 32-bit floats that are not from 0 to 1")
    share = np.clip(np.nan_to_num((values.astype(np.float64) - low) / (high - low)), 0, 1)
    return np.rint(share * 255).astype(np.uint8)


def _touched(start: float, length: float, side: int) -> slice:
    first, last = np.floor(start * side + _TINY), np.ceil((start + length) * side - _TINY)
    return slice(int(first), int(last))
