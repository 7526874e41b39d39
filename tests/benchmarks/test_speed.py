import pytest

from benchmarks import speed

TINY = speed.Case(32, 4, 2, widths=(4, 8, 16), items=12)


def test_losses_and_gradients_are_those_of_pytorch():
    pytest.importorskip("torch")
    assert speed.largest_difference(TINY) < 1e-10  # all of it in float64
