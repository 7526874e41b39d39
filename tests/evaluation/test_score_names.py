"""File names of any kind in the table of scores."""

import csv

import numpy as np

from daad_jax.data.dataset import Dataset, ImageSet
from daad_jax.evaluation import evaluate as evaluation
from tests.data.test_folder_names import SHOWN


def test_names_survive_to_the_csv(tmp_path):
    count = len(SHOWN)
    pixels = np.zeros((count, 2, 2, 1), np.uint8)
    names, kinds = [f"test/b\\xe4d,/{name}" for name in SHOWN], ["b\\xe4d,"] * count
    test = ImageSet(pixels, names, kinds)
    dataset = Dataset("widget", test, test, test)
    path = tmp_path / "scores.csv"
    evaluation.write_scores(path, dataset, {"R": np.arange(count) / 8}, None)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    assert [row[0] for row in rows] == names
    assert [row[1] for row in rows] == kinds
    assert [float(row[3]) for row in rows] == [index / 8 for index in range(count)]
