import numpy as np

from daad_jax.data.dataset import GOOD
from daad_jax.evaluation.picking import middle_images


def test_the_middle_image_of_each_kind_is_chosen_by_all_runs():
    kinds = ["bent", "bent", "bent", GOOD, GOOD, GOOD]
    scores = np.array([0.3, 0.1, 0.2, 0.5, 0.4, 0.6])
    assert middle_images(kinds, [scores, 100 * scores]) == [3, 2]
