"""Contours and maps at a picture's own size."""

import numpy as np

from daad_jax.reports import predictions

CYAN = (0x22, 0xD3, 0xEE)


def drawn(anomaly_map, level):
    picture = np.zeros(anomaly_map.shape, np.uint8)
    return (predictions.marked(picture, anomaly_map, level) == CYAN).all(-1)


def test_the_contour_surrounds_what_exceeds_the_level():
    anomaly_map = np.zeros((60, 80), np.float32)
    anomaly_map[20:30, 40:60] = 2.0
    line = drawn(anomaly_map, 1.0)
    rows, columns = np.nonzero(line)
    found = np.array([rows.min(), rows.max(), columns.min(), columns.max()])
    assert (np.abs(found - (20, 29, 40, 59)) <= 1).all()
    assert not line[22:28, 43:57].any()
    assert line.sum() < 80
    assert not drawn(anomaly_map, 3.0).any()


def test_a_contour_at_the_edge_is_closed_within_the_picture():
    anomaly_map = np.zeros((20, 30), np.float32)
    anomaly_map[:5, :5] = 2.0
    line = drawn(anomaly_map, 1.0)
    assert line[0, :4].all()
    assert line[:4, 0].all()
    assert drawn(np.ones((20, 30), np.float32), 0.5)[[0, -1]].all()  # all of it exceeds
