import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from daad_jax.data.masks import PackedMask
from daad_jax.evaluation import localization
from daad_jax.evaluation.localization import localization_metrics


def plain_aupro(masks, maps, limit):
    """AUPRO as its definition reads: every value is a threshold, every defect is looked at."""
    defects = []
    for index, mask in enumerate(masks):
        labelled, count = ndimage.label(mask, np.ones((3, 3)))
        defects += [(index, labelled == number) for number in range(1, count + 1)]
    good = np.concatenate([one[~mask] for mask, one in zip(masks, maps, strict=True)])
    rates, overlaps = [0.0], [0.0]
    for threshold in sorted({value for one in maps for value in one.ravel()}, reverse=True):
        rates.append(np.mean(good >= threshold))
        overlaps.append(np.mean([np.mean(maps[i][one] >= threshold) for i, one in defects]))
    area = 0.0
    for left, right, low, high in zip(rates, rates[1:], overlaps, overlaps[1:], strict=False):
        if right > limit:
            high = low + (high - low) * (limit - left) / (right - left)
            area += (limit - left) * (low + high) / 2
            break
        area += (right - left) * (low + high) / 2
    return area / limit


def plain(masks, maps):
    labels = np.concatenate([mask.ravel() for mask in masks])
    values = np.concatenate([one.ravel() for one in maps])
    return {
        "pixel_auroc": roc_auc_score(labels, values),
        "pixel_average_precision": average_precision_score(labels, values),
        "aupro_30": plain_aupro(masks, maps, 0.3),
        "aupro_5": plain_aupro(masks, maps, 0.05),
    }


def defects(seed, shapes):
    """Masks with a large defect, one of two pixels and a single pixel; the last two are empty."""
    rng, masks = np.random.default_rng(seed), []
    for height, width in shapes:
        mask = np.zeros((height, width), bool)
        mask[2 : height // 2, 3 : 3 + width // 4] = True
        mask[-2, -3], mask[-1, -2] = True, True  # they touch at a corner
        mask[-1, rng.integers(0, width // 2)] = True
        masks.append(mask)
    for mask in masks[-2:]:
        mask[:] = False
    return masks


def found(seed, masks, decimals):
    """Maps that find half of the defects; few decimals make many equal values."""
    rng = np.random.default_rng(seed)
    maps = [rng.random(mask.shape) + 0.5 * mask * rng.random() for mask in masks]
    return np.round(np.stack(maps), decimals).astype(np.float32)


@pytest.mark.parametrize("decimals", [1, 2, 9])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_metrics_are_those_of_a_plain_implementation(seed, decimals):
    masks = defects(seed, [(16, 12)] * 6)
    maps = found(seed, masks, decimals)
    expected = plain(masks, maps)
    assert localization_metrics(np.stack(masks), maps) == pytest.approx(expected, abs=1e-9)
    packed = [PackedMask(mask) for mask in masks]
    assert localization_metrics(packed, maps) == pytest.approx(expected, abs=1e-9)


def test_maps_are_resized_to_masks_of_any_size():
    masks = defects(3, [(16, 12), (31, 40), (9, 64), (12, 16), (8, 8), (20, 20)])
    masks[0][:] = True  # one defect, not background
    maps = np.random.default_rng(4).random((6, 8, 6)).astype(np.float32)
    resized = [
        np.asarray(Image.fromarray(one).resize(mask.shape[::-1], Image.Resampling.BILINEAR))
        for one, mask in zip(maps, masks, strict=True)
    ]
    assert localization_metrics(masks, maps) == pytest.approx(plain(masks, resized), abs=1e-9)


def test_every_defect_counts_alike_in_aupro_and_by_its_area_in_auroc():
    masks, maps = np.zeros((2, 1, 20, 20), np.float32)
    masks[0, :10] = masks[0, 15, 15] = 1
    maps[0, :10] = 1  # the large defect alone is found, without a false alarm
    result = localization_metrics(masks.astype(bool), maps)
    assert result["aupro_30"] == pytest.approx(0.5 + 0.5 * 0.15)  # all others come at once
    assert result["aupro_5"] == pytest.approx(0.5 + 0.5 * 0.025)
    assert result["pixel_auroc"] == pytest.approx((200 + 0.5) / 201)


def test_a_draw_of_thresholds_is_wrong_by_the_order_of_one_in_their_number(monkeypatch):
    rng = np.random.default_rng(0)
    masks = [ndimage.gaussian_filter(rng.normal(size=(256, 256)), 8) > 0.04 for _ in range(4)]
    maps = np.stack([one * 0.3 + rng.random(one.shape) ** 2 for one in masks]).astype(np.float32)
    exact = localization_metrics(masks, maps)
    monkeypatch.setattr(localization, "_MOST_THRESHOLDS", 10_000)
    assert sum(map(np.count_nonzero, masks)) > 30_000
    drawn = localization_metrics(masks, maps)
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=2 / 10_000)


def test_without_masks_or_without_both_kinds_of_pixels_there_is_nothing_to_measure():
    nothing = dict.fromkeys(["pixel_auroc", "pixel_average_precision", "aupro_30", "aupro_5"])
    assert localization_metrics(None, np.zeros((2, 3, 3))) == nothing
    assert localization_metrics(np.zeros((2, 3, 3), bool), np.zeros((2, 3, 3))) == nothing
    assert localization_metrics(np.ones((2, 3, 3), bool), np.zeros((2, 3, 3))) == nothing
