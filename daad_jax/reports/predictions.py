"""What `predict` shows of the worst pictures: maps and overlays as files, and one page."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw
from skimage.measure import find_contours

from daad_jax.data import decode
from daad_jax.data.frame import picture_box
from daad_jax.errors import BadFileError, warn
from daad_jax.reports import page, plots
from daad_jax.reports.page import Html, element
from daad_jax.runtime import signals
from daad_jax.runtime.files import replacing
from daad_jax.scoring.calibration import Calibration
from daad_jax.scoring.detector import Detector
from daad_jax.scoring.maps import resize_map
from daad_jax.scoring.predictions import CSV_FILE, Row, Summary
from daad_jax.scoring.stream import decode_files

PAGE_FILE = "predictions.html"
MAPS_FOLDER = "maps"
RawMaps = Literal["npy", "tiff"]
_MOST_SHOWN = 200  # pictures with their maps on the page
MOST_ROWS = 1000
"""The most scores that the page has in its table."""
_LEGEND = (
    "The line is the contour of what exceeds the pixel threshold. A calibrated score of 0 is that "
    "of the median good picture, and 1 is the threshold. p, the p-value, is how often a good "
    "picture scores this high. Bright in a map is what was not expected."
)
_SHOWN_SIZE = 480  # pixels of the longer side on the page
_LINE_SHARE = 200  # the contour's width is this part of the shorter side


def write_maps(
    folder: Path, detector: Detector, paths: Sequence[str], raw_maps: RawMaps | None = None
) -> None:
    """Writes the map and the overlay of each picture, at its own size, into ``maps``.

    ``NAME_map.png`` is the map in colours, ``NAME_overlay.png`` the picture with the contour of
    what exceeds the pixel threshold, and with `raw_maps` ``NAME_map.npy`` or ``NAME_map.tiff`` has
    the values, float32 ``(H, W)``. Pictures whose files are there already are passed over, and
    files of other pictures are removed. A picture that can no longer be read gets a warning.
    """
    target = folder / MAPS_FOLDER
    target.mkdir(exist_ok=True)
    kinds = ["map.png", "overlay.png", *([f"map.{raw_maps}"] if raw_maps else [])]
    wanted = {path: [_map_file(folder, path, kind) for kind in kinds] for path in paths}
    kept = {file for files in wanted.values() for file in files}
    for file in target.iterdir():
        if file not in kept:
            file.unlink()
    missing = (path for path, files in wanted.items() if not all(map(Path.exists, files)))
    for decoded in decode_files(detector, missing):
        for path, reason in decoded.errors.items():
            warn(f"{path}: {reason}; it has no map")
        if decoded.pixels is None:
            continue
        maps = detector.score_prepared(decoded.pixels).anomaly_map
        for path, anomaly_map in zip(decoded.usable, maps, strict=True):
            signals.check()
            _write_map(wanted[path], path, anomaly_map, detector)


def write_page(folder: Path, title: str, calibration: Calibration | None, summary: Summary) -> Path:
    """Writes ``predictions.html``, which needs no other file. Returns its path.

    The worst pictures that have files in ``maps`` are shown, and the scores of more in a table.
    """
    worst, legend = summary.worst, _LEGEND if calibration is not None else ""
    shown = [row for row in worst if _map_file(folder, row.path, "overlay.png").exists()]
    if len(shown) > _MOST_SHOWN:
        legend += f" The first {_MOST_SHOWN} of {len(shown)} with a map are shown."
    cards = [_card(folder, row) for row in shown[:_MOST_SHOWN]]
    body = [element("h1", title), _numbers(summary)]
    if calibration is not None:
        threshold = f"{calibration.decision} at or above {calibration.threshold:.5g}"
        body.append(page.note(f"Defective: {threshold}. From {calibration.describe()}."))
    if cards:
        group = page.group("examples", cards)
        body.append(page.section("Highest scores", page.note(legend), group))
    body += [_table(worst[:MOST_ROWS], summary), _broken(summary)]
    path = folder / PAGE_FILE
    with replacing(path) as partial:
        partial.write_text(page.document(title, body), encoding="utf-8")
    return path


def marked(picture: np.ndarray, anomaly_map: np.ndarray, level: float) -> np.ndarray:
    """Draws the contour of what exceeds a level of a map on a picture of the same size.

    `picture` is uint8 ``(H, W)`` or ``(H, W, 3)``, and `anomaly_map` float ``(H, W)``. Returns
    uint8 ``(H, W, 3)``.
    """
    canvas = Image.fromarray(picture).convert("RGB")
    draw, width = ImageDraw.Draw(canvas), max(1, round(min(canvas.size) / _LINE_SHARE))
    # Padded, so that the contour of a defect at the edge is closed.
    padded = np.pad(anomaly_map, 1, constant_values=float(min(anomaly_map.min(), level)) - 1.0)
    for line in find_contours(padded, level):
        points = np.clip(line - 1, 0, np.array(anomaly_map.shape) - 1)[:, ::-1]
        draw.line([(x, y) for x, y in points.tolist()], plots.MASK_COLOR, width, "curve")
    return np.asarray(canvas)


def _write_map(files: list[Path], path: str, anomaly_map: np.ndarray, detector: Detector) -> None:
    try:
        content = decode.read_bytes(Path(path))
        picture = decode.decode_picture(content, path, detector.config.data)
    except BadFileError as error:  # it has changed since it was scored
        return warn(f"{error}; it has no map")
    level = detector.pixel_threshold
    pixels = np.asarray(picture)
    region = picture_box(pixels.shape[:2], detector.config.data).region
    values = resize_map(anomaly_map[region], pixels.shape)
    scale = (0.0, 2 * level) if level else plots.color_scale(values)
    drawn = [plots.map_colors(values, scale)]
    drawn.append(pixels if level is None else marked(pixels, values, level))
    for file, image in zip(files[:2], drawn, strict=True):
        with replacing(file) as partial:
            Image.fromarray(image).save(partial, "png")
    for file in files[2:]:
        with replacing(file) as partial:
            if file.suffix == ".npy":
                with partial.open("wb") as opened:
                    np.save(opened, values)
            else:
                Image.fromarray(values).save(partial, "tiff")


def _map_file(folder: Path, path: str, kind: str) -> Path:
    """The file of a picture's map. Pictures of one name in several folders have different ones."""
    own = Path(path)
    digest = hashlib.blake2b(path.encode(errors="surrogateescape"), digest_size=4).hexdigest()
    return folder / MAPS_FOLDER / f"{own.stem[:100]}-{digest}_{kind}"


def _numbers(summary: Summary) -> Html:
    boxes = [("pictures", f"{summary.pictures:,}", "")]
    if summary.defective is not None:
        share = summary.defective / max(summary.pictures - summary.broken, 1)
        boxes.append(
            ("defective", f"{summary.defective:,}", f"{100 * share:.1f} % of those with a score")
        )
    if summary.broken:
        boxes.append(("cannot be used", f"{summary.broken:,}", ""))
    return page.numbers(*boxes)


def _card(folder: Path, row: Row) -> Html:
    tiles = []
    for label in ("overlay", "map"):
        with Image.open(_map_file(folder, row.path, f"{label}.png")) as image:
            image.thumbnail((_SHOWN_SIZE, _SHOWN_SIZE))
            tiles.append(page.tile(np.asarray(image), label, _short(row)))
    score, calibrated, p_value = _numerals(row)
    detail = f"score {score}"
    if calibrated:
        detail += f", calibrated {calibrated}, p {p_value}"
    return page.example(tiles, _decision(row), detail, _short(row))


def _short(row: Row) -> str:
    """The name of a picture with its folder."""
    return "/".join(Path(row.path).parts[-2:])


def _numerals(row: Row) -> list[str]:
    texts = ((row.score, ".4g"), (row.calibrated_score, ".3g"), (row.p_value, ".2g"))
    return [format(float(text), digits) if text else "" for text, digits in texts]


def _decision(row: Row) -> str:
    return {"": "no threshold", "0": "good", "1": "defective"}[row.defective]


def _table(rows: Sequence[Row], summary: Summary) -> Html:
    scored = summary.pictures - summary.broken
    if not scored:
        return Html("")
    cells = [[_short(row), *_numerals(row), _decision(row)] for row in rows]
    header = ["picture", "score", "calibrated", "p", "decision"]
    note = f"The highest {len(rows):,} of {scored:,}; {CSV_FILE} has all, with their paths."
    return page.section("Scores", page.note(note), page.table(header, cells))


def _broken(summary: Summary) -> Html:
    if not summary.broken:
        return Html("")
    note = f"{summary.broken:,} files have no score; {CSV_FILE} names them all."
    cells = [[row.path, row.error] for row in summary.first_broken]
    return page.section(
        "Files that cannot be used", page.note(note), page.table(["file", "reason"], cells)
    )
