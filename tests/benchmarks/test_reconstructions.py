from benchmarks import reconstructions
from tests.conftest import tiny_config


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
