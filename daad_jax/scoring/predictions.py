"""``predictions.csv``: a row per picture, appended as pictures are scored, and resumed."""

import csv
import hashlib
import heapq
import io
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from daad_jax import config as config_lib
from daad_jax.data import display_name
from daad_jax.errors import CheckpointError, DataError, printable
from daad_jax.runtime.files import replacing, write_json
from daad_jax.scoring import calibration as calibration_lib
from daad_jax.scoring.detector import Detector
from daad_jax.scoring.stream import Decoded
from daad_jax.workdir.logs import writing
from daad_jax.workdir.run import CHANGEABLE_FIELDS

CSV_FILE = "predictions.csv"
MADE_WITH_FILE = "predictions.json"
_PART_FILE = "predictions-{}.csv"
COLUMNS = ("path", "score", "calibrated_score", "p_value", "defective", "error")
_SCORE_FIELDS = ("score.decision", "score.gamma", "score.map_sigma", "score.map_quantile")
_CHUNK = 4096
_MOST_BROKEN = 100


class Row(NamedTuple):
    """A row of ``predictions.csv`` as text.

    Only `path` and `error` have values if the file cannot be used. `calibrated_score`, `p_value`
    and `defective` ("0" or "1") have none without calibration.
    """

    path: str
    score: str = ""
    calibrated_score: str = ""
    p_value: str = ""
    defective: str = ""
    error: str = ""


class Summary(NamedTuple):
    """The counts of all rows, the rows with the highest scores, and the first with an error.

    `defective` is None without a threshold. `worst` begins with the highest score.
    """

    pictures: int
    defective: int | None
    broken: int
    worst: list[Row]
    first_broken: list[Row]


class Predictions:
    """``predictions.csv`` and ``predictions.json`` of a folder. One process at a time may open it.

    Of several processes that share the pictures, the first one has part 0, the file itself. The
    others write their rows to files of their own, which the first one takes over.

    Attributes:
        done: the paths that have a row, as `row_path` writes them.
        decided_anew: whether the rows had another threshold, and were decided again.
    """

    def __init__(self, folder: Path, detector: Detector, part: int = 0) -> None:
        """Opens the file, or begins it. A row that was half written is removed.

        Another `part` than 0 opens after part 0, and begins its own file.

        Rows of the same scores with another threshold are decided again. Raises CheckpointError if
        they are of another model or other score settings, and DataError if the file is damaged.
        """
        self.path, self._detector, self.decided_anew = folder / CSV_FILE, detector, False
        if part == 0:
            self._resume(_made_with(detector))
        self.done = {row.path for row in self.rows()} if self.path.exists() else set()
        if part > 0:
            self.path = folder / _PART_FILE.format(part)
            self.path.unlink(missing_ok=True)
        self._open()

    def _resume(self, made_with: dict[str, Any]) -> None:
        stored = self.path.parent / MADE_WITH_FILE
        if self.path.exists():
            self.decided_anew = _check(stored, made_with) != made_with
            _cut_half_row(self.path)
            self.take_over()
            if self.decided_anew:
                self._decide_anew()
        write_json(stored, made_with)

    def _open(self) -> None:
        with writing(self.path):
            self._file = self.path.open("a", newline="", encoding="utf-8")
            if not self._file.tell():
                self._write([COLUMNS])

    def take_over(self) -> None:
        """Appends the rows of the other parts and removes their files."""
        known = {row.path for row in self.rows()}
        for part in sorted(self.path.parent.glob(_PART_FILE.format("*"))):
            _cut_half_row(part)
            with writing(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(row for row in _rows(part) if row.path not in known)
            part.unlink()

    def close(self) -> None:
        """Closes the file."""
        with writing(self.path):
            self._file.close()

    def append(self, decoded: Decoded) -> None:
        """Scores some files and adds their rows in order."""
        found: Iterator[float] = iter(())
        if decoded.pixels is not None:
            found = iter(self._detector.score_prepared(decoded.pixels).decision_score.tolist())
        numbers = {path: next(found) for path in decoded.usable}
        rows = self._judge(
            (row_path(path), numbers.get(path), decoded.errors.get(path, ""))
            for path in decoded.paths
        )
        self._write(rows)
        self.done.update(row.path for row in rows)

    def rows(self) -> Iterator[Row]:
        """Reads the rows. Raises DataError if the file is damaged."""
        return _rows(self.path)

    def summarize(self, most: int | None) -> Summary:
        """Counts the rows and keeps the `most` with the highest scores; all with None."""
        pictures = defective = broken = 0
        first_broken: list[Row] = []

        def scored() -> Iterator[Row]:
            nonlocal pictures, defective, broken
            for row in self.rows():
                pictures, defective = pictures + 1, defective + (row.defective == "1")
                if row.score:
                    yield row
                    continue
                broken += 1
                if broken <= _MOST_BROKEN:
                    first_broken.append(row)

        if most is None:
            worst = sorted(scored(), key=_score, reverse=True)
        else:
            worst = heapq.nlargest(most, scored(), key=_score)
        decided = None if self._detector.calibration is None else defective
        return Summary(pictures, decided, broken, worst, first_broken)

    def _judge(self, found: Iterable[tuple[str, float | None, str]]) -> list[Row]:
        """The rows for paths with their scores, or None, and their errors."""
        known, calibration = list(found), self._detector.calibration
        scores = np.array([score for _, score, _ in known if score is not None], np.float64)
        columns: list[Iterable[Any]] = [map(repr, scores.tolist())]
        if calibration is None:
            columns += [[""] * len(scores)] * 3
        else:
            relative, p_value, defective = calibration_lib.judge(calibration, scores)
            columns += [map(repr, relative.tolist()), map(repr, p_value.tolist())]
            columns += [map(str, defective.astype(int).tolist())]
        cells = zip(*columns, strict=True)
        return [
            Row(path, error=printable(error)) if score is None else Row(path, *next(cells))
            for path, score, error in known
        ]

    def _decide_anew(self) -> None:
        rows = self.rows()
        with (
            replacing(self.path) as partial,
            partial.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            while chunk := list(itertools.islice(rows, _CHUNK)):
                writer.writerows(
                    self._judge(
                        (row.path, float(row.score) if row.score else None, row.error)
                        for row in chunk
                    )
                )

    def _write(self, rows: Iterable[Iterable[str]]) -> None:
        """Appends whole rows in one call, so that a kill leaves at most one half-written row."""
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        with writing(self.path):
            self._file.write(text.getvalue())
            self._file.flush()


def _rows(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8", errors="backslashreplace") as file:
        reader = csv.reader(file)
        try:
            if next(reader, list(COLUMNS)) != list(COLUMNS):
                raise ValueError("other columns")
            for cells in reader:
                row = Row(*cells)
                float(row.score or 0)
                yield row
        except (ValueError, TypeError, csv.Error) as error:
            raise DataError(
                f"{path}: line {reader.line_num} cannot be read; move the file away"
            ) from error


def row_path(path: str) -> str:
    """A file's path as ``predictions.csv`` has it: bytes that are not UTF-8 become escapes."""
    return display_name(path)


def _score(row: Row) -> float:
    return float(row.score)


def _cut_half_row(path: Path) -> None:
    """Removes what follows the last complete row of a CSV file.

    A line break within quotes belongs to a path. Quotes are doubled within quotes, so outside of
    them their number is even.
    """
    end = quotes = here = 0
    with writing(path), path.open("r+b") as file:
        for line in file:
            here, quotes = here + len(line), quotes + line.count(b'"')
            if line.endswith(b"\n") and quotes % 2 == 0:
                end = here
        file.truncate(end)


def _made_with(detector: Detector) -> dict[str, Any]:
    """What the rows depend on: the model and its score, then the threshold."""
    fields = config_lib.flatten(config_lib.to_dict(detector.config))
    scored = {name: fields[name] for name in fields if name not in CHANGEABLE_FIELDS}
    scored |= {name: fields[name] for name in _SCORE_FIELDS}
    calibration = detector.calibration
    made: dict[str, Any] = {"weights": detector.fingerprint, "fields": scored}
    if calibration is None:
        return {"model": _digest(made), "threshold": None, "threshold_from": None, "good": None}
    made["scales"] = calibration.scales
    made["deviations"] = calibration.deviations
    return {
        "model": _digest(made),
        "threshold": calibration.threshold,
        "threshold_from": calibration.describe(),
        "good": _digest(calibration.good_scores),
    }


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=16).hexdigest()


def _check(path: Path, made_with: dict[str, Any]) -> dict[str, Any]:
    """What existing rows were made with. Raises CheckpointError if by another model."""
    try:
        stored: dict[str, Any] = json.loads(path.read_text())
        same = stored["model"] == made_with["model"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{path}: cannot be read, and {CSV_FILE} depends on it; choose another --output"
        ) from error
    if not same:
        raise CheckpointError(
            f"{path.parent / CSV_FILE}: was made by another model or other score settings; choose "
            "another --output, or remove that folder"
        )
    return stored
