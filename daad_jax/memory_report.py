"""The report's pictures of what blocks read: why a region was rebuilt, or was not."""

from collections.abc import Sequence

import numpy as np

from daad_jax import diagnostics, page, partition, plots
from daad_jax.data import Dataset
from daad_jax.diagnostics import BlockReads, Neighbours
from daad_jax.evaluation import Evaluation
from daad_jax.page import Html, element
from daad_jax.scoring import Scorer, memory_spec

_TRAINING_IMAGES = 256
_SHOWN_ITEMS = 12
_TOLD_ITEMS = 3


def explain(evaluation: Evaluation, dataset: Dataset, positions: Sequence[int]) -> Html:
    """Some test images as what their blocks read, and the items most in use.

    Args:
        evaluation: what `daad_jax.evaluation.evaluate` returned.
        dataset: what it was called with.
        positions: of the test images to explain.

    Returns:
        A section of the report; nothing for a run without memory.
    """
    scorer = evaluation.scorer
    if scorer is None or not evaluation.summary["memory"]:
        return Html("")
    train = dataset.train.images
    train = np.asarray(train[:: -(-len(train) // _TRAINING_IMAGES)])
    near = diagnostics.nearest_blocks(scorer, train)
    chosen = np.asarray(dataset.test.images[np.asarray(positions)])
    reads = diagnostics.block_reads(scorer, chosen, _TOLD_ITEMS)
    cards = [
        _card(scorer, evaluation, dataset, place, position, reads, near, train)
        for place, position in enumerate(positions)
    ]
    note = (
        "Each block is shown as the block of a training image that is most similar to the item "
        "with its largest weight: where this differs from the input, the memory had nothing "
        "better. Black: every weight was dropped. Outlined, and told below with its "
        f"{_TOLD_ITEMS} largest weights: the block of the coarsest memory with the largest error. "
        "Of several blocks along the channels the first is shown."
    )
    return page.join(
        [
            element("h2", "What blocks read"),
            element("p", note, class_="note"),
            element("div", *cards, class_="examples"),
            element("h3", "Items most in use"),
            element(
                "p",
                "From left to right, the most used first. Above, a scale's whole map made of one "
                "item and decoded, the other maps being the mean of training images; below, the "
                "training block that is most similar to it.",
                class_="note",
            ),
            *_most_used(scorer, near, train),
        ]
    )


def mosaic(
    items: np.ndarray,
    weights: np.ndarray,
    near: Neighbours,
    images: np.ndarray,
    rates: partition.Rates,
) -> np.ndarray:
    """An image put together of the training blocks behind what each of its blocks read.

    Args:
        items: int ``(Q,)``, of each block the item with the largest weight.
        weights: ``(Q,)``, that weight; 0 leaves the block black.
        near: the training block of each item.
        images: uint8 ``(n, H, W, C)``, the training images that `near` is about.
        rates: ``(r_h, r_w, r_c)``; of the blocks along the channels the first is taken.

    Returns:
        uint8 ``(H, W, C)``.
    """
    result = np.zeros_like(images[0])
    for block in range(0, len(items), rates[2]):
        if weights[block] > 0:
            item = items[block]
            source = images[near.image[item]]
            result[region(block, rates, source.shape)] = source[
                region(int(near.block[item]), rates, source.shape)
            ]
    return result


def region(block: int, rates: partition.Rates, shape: Sequence[int]) -> tuple[slice, slice]:
    """The rows and columns of an image ``(H, W, ...)`` that a block of a feature map covers."""
    row, column = divmod(block // rates[2], rates[1])
    height, width = shape[0] // rates[0], shape[1] // rates[1]
    return (
        slice(row * height, (row + 1) * height),
        slice(column * width, (column + 1) * width),
    )


def _card(
    scorer: Scorer,
    evaluation: Evaluation,
    dataset: Dataset,
    place: int,
    position: int,
    reads: dict[str, BlockReads],
    near: dict[str, Neighbours],
    train: np.ndarray,
) -> Html:
    test = dataset.test
    name = test.names[position]
    scale = list(reads)[-1]
    rates = memory_spec(scorer.networks, scale).rates
    error = evaluation.raw.anomaly_map[position]
    means = [error[region(block, rates, error.shape)].mean() for block in range(np.prod(rates))]
    worst = int(np.argmax(means))
    row, column = divmod(worst // rates[2], rates[1])
    marked = region(worst, rates, error.shape)
    tiles = [_tile(np.asarray(test.images[position]), "input", name, marked)]
    for other, one in reads.items():
        divided = memory_spec(scorer.networks, other).rates
        made = mosaic(one.items[place, :, 0], one.weights[place, :, 0], near[other], train, divided)
        tiles.append(_tile(made, other.replace("_", " "), name, marked))
    pairs = zip(reads[scale].items[place, worst], reads[scale].weights[place, worst], strict=True)
    told = ", ".join(f"item {item} with {weight:.2f}" for item, weight in pairs if weight > 0)
    caption = element(
        "figcaption",
        element("b", test.kinds[position]),
        f" \u00b7 block in row {row + 1}, column {column + 1} of {scale.replace('_', ' ')}: "
        f"{told or 'nothing'}",
        element("br"),
        name,
    )
    return element("figure", element("div", *tiles, class_="tiles"), caption, class_="example")


def _tile(pixels: np.ndarray, what: str, name: str, marked: tuple[slice, slice]) -> Html:
    """A picture with the outline of one region, and its name below."""
    picture = page.image(plots.squeeze(pixels), f"{what}, blocks read by {name}")
    (top, bottom), (left, right) = ((side.start, side.stop) for side in marked)
    path = element("path", d=f"M{left} {top}H{right}V{bottom}H{left}Z")
    outline = element("svg", path, view_box=f"0 0 {pixels.shape[1]} {pixels.shape[0]}")
    return element("div", element("div", picture, outline, class_="tile"), element("span", what))


def _most_used(scorer: Scorer, near: dict[str, Neighbours], train: np.ndarray) -> list[Html]:
    usage = scorer.usage(train)
    banks = diagnostics.memory_items(scorer)
    chosen = {}
    for scale, bank in banks.items():
        weight = np.asarray(usage[scale].weight).reshape(bank.shape[:2]).sum(axis=0)
        chosen[scale] = np.argsort(-weight, kind="stable")[:_SHOWN_ITEMS]
    decoded = diagnostics.decode_items(scorer, train, chosen)
    figures = []
    for scale, pictures in decoded.items():
        rates = memory_spec(scorer.networks, scale).rates
        upper = [_framed(plots.to_pixels(picture)) for picture in pictures]
        size = upper[0].shape[0]
        lower = []
        for item in chosen[scale]:
            source = train[near[scale].image[item]]
            crop = source[region(int(near[scale].block[item]), rates, source.shape)]
            lower.append(_framed(plots.squeeze(_stretched(crop, size))))
        strip = np.concatenate([np.concatenate(upper, axis=1), np.concatenate(lower, axis=1)])
        title = scale.replace("_", " ")
        numbers = ", ".join(str(item) for item in chosen[scale])
        caption = element("figcaption", f"{title}: items {numbers}")
        figures.append(element("figure", page.image(strip, f"items of {title}"), caption))
    return figures


def _stretched(crop: np.ndarray, size: int) -> np.ndarray:
    """A crop at ``size`` x ``size`` pixels, each of its own repeated."""
    rows, columns = (np.arange(size) * side // size for side in crop.shape[:2])
    return crop[rows][:, columns]


def _framed(pixels: np.ndarray) -> np.ndarray:
    """Pixels with a white line at the right and the bottom, which parts them from the next."""
    framed = pixels.copy()
    framed[-1], framed[:, -1] = 255, 255
    return framed
