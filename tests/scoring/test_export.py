"""An exported file gives the scores, decisions and maps of the detector that it was made from."""

import dataclasses
import sys
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from daad_jax import exported
from daad_jax.addressing.rules import RULES
from daad_jax.data import decode
from daad_jax.errors import ConfigError, NonFiniteError
from daad_jax.exported import load_exported
from daad_jax.models.autoencoder import normalize_images
from daad_jax.models.build import build_networks
from daad_jax.runtime import sharding
from daad_jax.scoring.calibration import calibrate, fit_reference
from daad_jax.scoring.detector import Detector
from daad_jax.scoring.export import export_detector
from daad_jax.scoring.onnx import export_onnx
from daad_jax.scoring.scorer import Scorer
from tests.conftest import tiny_config

COMBINED = {"data__calibration_fraction": 0.2, "score__decision": "combined"}
BOXES = "0,0,0.3,0.2; 0.8,0.5,0.1,0.4"


def pictures(count, channels=1, seed=0):
    """Smooth random pictures of various sizes."""
    rng = np.random.default_rng(seed)
    shapes = [(20 + 3 * index, 24 + 5 * (index % 4), channels) for index in range(count)]
    coarse = [rng.integers(30, 220, (4, 4, channels), dtype=np.uint8) for _ in shapes]
    return [
        one.repeat(16, 0).repeat(12, 1)[:height, :width] + rng.integers(0, 30, dtype=np.uint8)
        for one, (height, width, _) in zip(coarse, shapes, strict=True)
    ]


def make_detector(setting="daad_plus", *, calibrated=True, **overrides):
    """A detector with untrained weights, whose threshold is from a dozen pictures."""
    config = tiny_config(setting, **{**COMBINED, **overrides})
    networks = build_networks(config)
    data = dataclasses.replace(config.data, brightness="kept")
    good = np.stack([decode.resize_array(one, config.data) for one in pictures(12, data.channels)])
    shape = (2, *config.data.network_size, data.channels)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    init = jax.jit(lambda module, key, x: module.init(key, x, train=True), static_argnums=0)
    variables = tuple(
        one and init(one, jax.random.key(0), normalize_images(jnp.asarray(noise)))
        for one in networks
    )
    scorer = Scorer(networks, variables, config, sharding.make_mesh(jax.devices()[:1]))
    raw = scorer(good)
    reference = fit_reference(raw, 0)
    calibration = calibrate(raw, 0, config.score, reference) if calibrated else None
    return Detector(config, scorer, 0, calibration, reference)


def export(detector, path, **about):
    data = dataclasses.replace(detector.config.data, brightness="kept")
    few = [decode.resize_array(one, data) for one in pictures(3, data.channels, seed=1)]
    export_detector(path, detector, np.stack(few), about)
    return load_exported(path)


def assert_same(detector, file, batches=(1, 7)):
    """The same results to 1e-5 of the score's spread, from pictures of other sizes."""
    given = pictures(max(batches), detector.config.data.channels, seed=2)
    whole = detector.score(given)
    spread = file.metadata["spread"]
    assert file.difference <= 1e-5
    for count in batches:
        found = file.score(given[:count])
        for name, values in found._asdict().items():
            expected = getattr(whole, name)
            assert (values is None) == (expected is None), name
            if values is not None:
                assert values.dtype == expected.dtype
        difference = np.abs(found.decision_score - whole.decision_score[:count])
        assert difference.max() <= 1e-5 * spread
        scale = np.abs(whole.anomaly_map).max()
        np.testing.assert_allclose(found.anomaly_map, whole.anomaly_map[:count], atol=1e-5 * scale)
        if found.p_value is not None:
            np.testing.assert_allclose(found.p_value, whole.p_value[:count])
            np.testing.assert_array_equal(found.defective, whole.defective[:count])
            difference = found.calibrated_score - whole.calibrated_score[:count]
            assert np.abs(difference).max() <= 1e-4


DEFAULT = {
    "combined": {},
    "padded": {
        "data__fit": "pad",
        "data__ignore": BOXES,
        "data__brightness": "equal",
        "data__channels": 3,
        "score__map": "fused",
    },
}
VARIANTS = {
    # 9 items, because product keys need a square
    **{f"rule {name}": {"memory__addressing": name, "memory__items": 9} for name in RULES},
    "banks": {"memory__banks": "2x2", "memory__learned_temperature": True},
    "chunks": {"memory__chunk_mib": 1, "memory__items": 5000, "score__batch_size": 16},
    "tiles": {"data__image_size": (40, 24), "data__tile": 16, "score__batch_size": 4},
    "tiles with padding": {
        "data__image_size": (40, 24),
        "data__tile": 16,
        "data__fit": "pad",
        "data__brightness": "equal",
    },
    "features": {"score__map": "features"},
    "relative": {"score__map": "relative", "score__map_scales": (1.0, 3.0)},
    "rotate": {"train__corruption": "rotate"},
    "inpaint": {"train__corruption": "inpaint"},
    "grey": {"train__corruption": "grey", "data__channels": 3},
    "A": {"score__decision": "A"},
    "R quantile": {"score__decision": "R_quantile"},
    "L max relative": {"score__decision": "L_max_relative"},
    "uncalibrated": {"calibrated": False, "score__decision": "A"},
    "equal brightness": {"data__brightness": "equal"},
    "range": {"data__value_range": (0.0, 4095.0)},
}


@pytest.mark.parametrize("name", DEFAULT)
def test_the_file_gives_the_same_results(name, tmp_path):
    detector = make_detector(**DEFAULT[name])
    assert_same(detector, export(detector, tmp_path / "a.daad"))


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_the_file_gives_the_same_results_with(name, tmp_path):
    detector = make_detector(**VARIANTS[name])
    assert_same(detector, export(detector, tmp_path / "a.daad"))


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["ae", "ae_skip", "memae", "memae_skip", "daad", "daad_plus"])
def test_the_file_gives_the_same_results_in_every_setting(setting, tmp_path):
    detector = make_detector(setting)
    assert_same(detector, export(detector, tmp_path / "a.daad"), batches=(1, 7, 32))


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["ae", "memae", "daad_plus"])
def test_onnx_runtime_gives_the_same_results(setting, tmp_path):
    """Runs where the extra ``onnx`` is installed."""
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    detector = make_detector(setting)
    pixels = np.stack([detector.prepare(one) for one in pictures(9, seed=2)])
    assert export_onnx(tmp_path / "a.onnx", detector, pixels[:3]) <= 1e-5
    session = runtime.InferenceSession(tmp_path / "a.onnx")
    names = [one.name for one in session.get_outputs()]
    expected = detector.score_prepared(pixels)
    for count in (1, 7, 9):
        found = dict(zip(names, session.run(names, {"images": pixels[:count]}), strict=True))
        assert found.keys() == set(exported.Result._fields)
        for name in names:
            values = getattr(expected, name)[:count]
            np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data__brightness": "equal"}, "equal brightness cannot be written as ONNX"),
        ({}, r"ONNX needs jax2onnx; pip install 'daad_jax\[onnx\]'"),
    ],
)
def test_what_onnx_cannot_hold_is_one_line(overrides, message, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", ModuleType("onnx"))
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    detector = Detector(tiny_config(**overrides), None, 0, None, None)
    with pytest.raises(ConfigError, match=message):
        export_onnx(tmp_path / "a.onnx", detector, np.zeros((1, 16, 16, 1), np.uint8))


def test_diverged_weights_are_one_line(tmp_path):
    detector = make_detector("ae", calibrated=False, score__decision="A")
    detector.scorer.variables = jax.tree.map(lambda x: x * jnp.nan, detector.scorer.variables)
    with pytest.raises(NonFiniteError, match="the weights have diverged"):
        export_detector(tmp_path / "a.daad", detector, np.zeros((1, 16, 16, 1), np.uint8), {})
    assert not (tmp_path / "a.daad").exists()
