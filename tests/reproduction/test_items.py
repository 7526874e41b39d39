import pytest

from daad_jax import api
from daad_jax import config as config_lib
from daad_jax.reproduction import items
from daad_jax.reproduction.items import ITEMS, Subject
from daad_jax.reproduction.scales import CIFAR10, MNIST, MVTEC, SCALES, TEXTURES, build


@pytest.fixture
def data(tmp_path):
    """A folder with one category of the paper and one that it does not have."""
    for name in ("screw", "magnetic_tile"):
        (tmp_path / MVTEC / name).mkdir(parents=True)
    return tmp_path


def everything(scale, data, seeds=(0,)):
    return [items.runs(item, scale, data, seeds) for item in ITEMS]


@pytest.mark.parametrize("scale", SCALES)
def test_every_run_of_every_item_can_work(scale, data):
    runs = items.ordered(everything(scale, data))
    unlike = {(run.subject.images, run.model): run for run in runs}
    assert {images for images, _ in unlike} >= {MNIST, CIFAR10}
    for run in unlike.values():
        api.check(run.config)


def test_the_paper_scale_of_mvtec_is_the_paper_setting():
    for setting in config_lib.SETTINGS:
        assert build("paper", MVTEC, setting) == config_lib.from_setting(setting)
    assert build("paper", MVTEC, "daad_r8") == build("paper", MVTEC, "daad")
    assert build("paper", MVTEC, "no_memory") == build("paper", MVTEC, "ae_skip")
    both = build("paper", MVTEC, "ae_adv_ali")
    assert (both.loss.adv, both.loss.ali, both.score.gamma) == (0.5, 0.5, 0.9)
    assert both.train.learning_rate == 2e-4
    assert build("paper", MVTEC, "daad_adv").loss.ali == 0
    assert len(build("paper", MVTEC, "memae_4x").model.widths) == 2


def test_small_runs_have_the_losses_and_scores_of_the_paper():
    for images in (MVTEC, TEXTURES, MNIST, CIFAR10):
        config, stated = build("small", images, "daad_plus"), config_lib.from_setting("daad_plus")
        assert config.loss == stated.loss
        assert (config.score.protocol, config.score.decision) == ("paper", "A")
        assert config.memory.temperature == 1.0
        assert config.data.calibration_fraction == 0.0
    assert build("small", MNIST, "daad_plus").memory.scales == "bottleneck"
    assert build("small", MNIST, "ae").memory.scales == "none"
    assert build("small", MVTEC, "memae").memory.division_rates == "pixel"
    assert build("small", MVTEC, "default") == config_lib.PRESETS["folder"]()


def test_items_share_their_trainings(data):
    by_item = dict(zip(ITEMS, everything("small", data), strict=True))
    table3 = {repr(run.config) for run in by_item["table3"]}
    table5 = [repr(run.config) for run in by_item["table5"] if run.subject.category == "screw"]
    assert len(table5) == 9
    assert len(set(table5) - table3) == 5
    assert {repr(run.config) for run in by_item["figure5"]} <= {
        repr(run.config) for run in by_item["table4"]
    }
    runs = items.ordered(by_item.values())
    assert len({repr(run.config) for run in runs}) == len(runs)


def test_the_first_seed_of_everything_comes_first(data):
    runs = items.ordered(everything("small", data, (3, 4)))
    seeds = [run.config.seed for run in runs]
    assert seeds == sorted(seeds)
    assert {run.model for run in runs if run.config.seed == 4}.isdisjoint({"memae_2x"})


def test_only_what_is_at_hand_is_run_but_all_is_shown(data):
    shown = items.subjects("table3", "small")
    assert len(shown) == 15 + 4
    assert shown[0] == Subject(MVTEC, "carpet")
    assert Subject(TEXTURES, "gravel") in shown
    run = {run.subject.category for run in items.runs("table3", "small", data, (0,))}
    assert run == {"screw", "magnetic_tile", "brick", "grass", "gravel"}
    assert {run.subject.category for run in items.runs("table3", "paper", data, (0,))} == {"screw"}
    chosen = items.runs("table4", "paper", data, (0,), ["magnetic_tile"])
    assert {run.config.data.category for run in chosen} == {"magnetic_tile"}


def test_sets_that_are_not_in_the_folder_are_downloaded(data):
    (data / MNIST).mkdir()
    roots = {
        run.config.data.source: run.config.data.root
        for run in items.runs("table2", "small", data, (0,))
    }
    assert roots == {"mnist": str(data / MNIST), "cifar10": ""}
