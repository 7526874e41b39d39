import re

import numpy as np
import pytest

import daad_jax
from daad_jax.evaluation.diagnostics import BlockReads, Neighbours
from daad_jax.reports import html as html_report
from daad_jax.reports import memory as memory_report
from tests.conftest import tiny_config, tiny_dataset

IMAGES = np.random.default_rng(0).integers(1, 256, (3, 8, 8, 1), dtype=np.uint8)


def test_a_mosaic_is_made_of_the_training_blocks_behind_the_items():
    near = Neighbours(np.array([2, 0]), np.array([3, 4]), np.zeros(2))
    items, weights = np.array([1, 0, 0, 0, 1, 0, 0, 0]), np.array([1.0] * 4 + [0.5] * 3 + [0])
    read = BlockReads(items[:, None], weights[:, None])
    made = memory_report.mosaic(read, near, IMAGES, (4, 2, 1))
    np.testing.assert_array_equal(made[0:2, 0:4], IMAGES[0, 4:6, 0:4])  # block 0 reads item 1
    np.testing.assert_array_equal(made[0:2, 4:8], IMAGES[2, 2:4, 4:8])  # block 1 reads item 0
    np.testing.assert_array_equal(made[6:8, 4:8], 0)  # dead


def test_blocks_along_the_channels_cover_the_same_region():
    shape = (8, 8, 1)
    assert memory_report.region(7, (2, 2, 2), shape) == (slice(4, 8), slice(4, 8))
    assert memory_report.region(2, (2, 2, 2), shape) == (slice(0, 4), slice(4, 8))


def test_only_the_first_of_the_blocks_along_the_channels_is_shown():
    near = Neighbours(np.array([0, 1]), np.array([0, 2]), np.zeros(2))
    read = BlockReads(np.arange(8)[:, None] % 2, np.full((8, 1), 0.5))
    made = memory_report.mosaic(read, near, IMAGES, (2, 2, 2))
    np.testing.assert_array_equal(made, np.tile(IMAGES[0, :4, :4], (2, 2, 1)))


def test_the_block_with_the_largest_error_is_described():
    error = np.zeros((8, 8))
    error[2:4, 4:8] = 1.0
    read = BlockReads(np.arange(32).reshape(16, 2), np.tile([0.75, 0.0], (16, 1)))
    detail, path = memory_report._worst_block("scale_2", read, error, (4, 2, 2))
    assert detail == "block in row 2, column 2 of scale 2: item 12 with 0.75"
    assert path == "M4 2H8V4H4Z"
    dead = read._replace(weights=0 * read.weights)
    detail, _ = memory_report._worst_block("scale_2", dead, error, (4, 2, 2))
    assert detail.endswith("all weights are zero")


@pytest.mark.slow
def test_the_report_shows_what_blocks_read(tmp_path, one_device):
    config = tiny_config("daad", train__steps=2, memory__banks="1x2", memory__addressing="top_k")
    dataset = tiny_dataset(config)
    state = daad_jax.fit(config, dataset, mesh=one_device, log=lambda _: None)
    evaluation = daad_jax.evaluate(config, state, dataset, mesh=one_device)
    text = html_report.write_report(tmp_path, evaluation, dataset).read_text()
    assert "What blocks read" in text
    assert "Items used most" in text
    # Of each image, its worst block of 2 x 2 is outlined in all three pictures and named.
    part = text[text.index("What blocks read") :]
    assert part.count('alt="input of ') == part.count('alt="scale 1 of ') == 4
    outlines = re.findall(r'<path d="M(\d+) (\d+)H(\d+)V(\d+)H\1Z"', part)
    told = re.findall(r"block in row (\d), column (\d) of scale 2", part)
    assert len(outlines) == 3 * len(told) == 12
    for (row, column), corners in zip(told, outlines[::3], strict=True):
        top, left = 8 * (int(row) - 1), 8 * (int(column) - 1)
        assert tuple(map(int, corners)) == (left, top, left + 8, top + 8)
    assert "scale 2: items" in text
    keys = {"active_items", "entropy", "dead_reads", "reads", "cosine_mean", "cosine_largest"}
    assert keys <= evaluation.summary["memory"]["scale_1"].keys()
    without = evaluation._replace(scorer=None)
    assert (
        "What blocks read" not in html_report.write_report(tmp_path, without, dataset).read_text()
    )
