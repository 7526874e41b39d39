import pytest

from daad_jax.reproduction import results

THREE = {0: 0.90, 1: 0.92, 2: 0.94}  # mean 0.92, standard deviation 0.02


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("0.935", "within"),
        ("0.905", "within"),
        ("0.899", "above"),
        ("0.950", "below"),
        (None, "not in the paper"),
    ],
)
def test_a_verdict_compares_with_the_spread_over_seeds(printed, expected):
    assert results.verdict(THREE, printed) == expected


def test_a_verdict_says_why_there_is_none():
    assert (
        results.verdict(THREE, "0.9", 3, "of 15 parts") == "not comparable\n3 of 15 parts missing"
    )
    assert results.verdict({}, "0.9") == "not run"
    assert results.verdict({0: 0.8}, "0.9") == "below, one seed"


def test_numbers_are_shown_with_their_spread():
    assert results.shown(THREE) == "0.920 ± 0.020"
    assert results.shown({1: 0.5}) == "0.500"
    assert results.shown({}) == "not run"
    assert results.difference(THREE, "0.9") == "+0.020"
    assert results.difference({}, "0.9") == results.difference(THREE, None) == ""


def test_a_mean_over_subjects_is_taken_seed_by_seed():
    assert results.mean_over([{0: 0.2, 1: 0.4}, {0: 0.6, 2: 1.0}]) == {0: pytest.approx(0.4)}
    assert results.mean_over([]) == {}
    assert results.complete([[{0: 1.0}, {}], [{0: 1.0}, {1: 1.0}]]) == [[{0: 1.0}, {1: 1.0}]]
