import numpy as np

from benchmarks import reconstructions
from daad_jax.data.dataset import GOOD
from tests.conftest import tiny_config


def test_the_middle_image_of_each_kind_is_chosen_by_all_runs():
    kinds = ["bent", "bent", "bent", GOOD, GOOD, GOOD]
    scores = np.array([0.3, 0.1, 0.2, 0.5, 0.4, 0.6])
    assert reconstructions.median_images(kinds, [scores, 100 * scores]) == [3, 2]


def test_a_run_is_headed_by_what_sets_it_apart_from_its_setting():
    configs = [
        tiny_config("ae", train__steps=9),
        tiny_config("daad", memory__division_rates=(1, 1, 1)),
        tiny_config("daad", memory__division_rates=((4, 4, 1), (2, 2, 1))),
    ]
    assert reconstructions.run_titles(configs) == [
        "ae",
        "daad\ndivision_rates (1, 1, 1)",
        "daad\ndivision_rates ((4, 4, 1), (2, 2, 1))",
    ]
