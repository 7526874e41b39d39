"""The report's section that shows what the memories read, as blocks of training images."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from daad_jax.data import Dataset, ImageSet
from daad_jax.data.tiles import Tiles
from daad_jax.evaluation import diagnostics
from daad_jax.evaluation.diagnostics import BlockReads, Neighbours
from daad_jax.evaluation.evaluate import Evaluation, evenly_spaced
from daad_jax.models.autoencoder import scale_memories
from daad_jax.models.blocks import Rates
from daad_jax.reports import page, plots
from daad_jax.reports.page import Html, element
from daad_jax.scoring.scorer import Scorer

_TRAINING_IMAGES = 256
_SHOWN_ITEMS = 12
_LISTED_ITEMS = 3
_BLOCK_NOTE = (
    "Each block is replaced by the training block that is most similar to the item with the "
    "largest weight. Where the result differs from the input, the memory has nothing more similar. "
    "A black block has only zero weights. The outline marks the block of the coarsest memory with "
    f"the largest error; its {_LISTED_ITEMS} largest weights are listed. If a map is also divided "
    "along its channels, only the first block is shown. Of a picture in tiles, the tile with the "
    "largest error is shown."
)
_ITEM_NOTE = (
    "The most used items of each memory, from left to right. Top: the decoded image if the whole "
    "map of this scale is made of one item; the maps of the other scales are means of training "
    "images. Bottom: the training block that is most similar to the item; with several banks, to "
    "the item of the first bank."
)


def section(evaluation: Evaluation, dataset: Dataset, positions: Sequence[int]) -> Html:
    """Renders the section for the test images at `positions`. It is empty without a memory."""
    scorer = evaluation.scorer
    if scorer is None or not evaluation.summary["memory"]:
        return Html("")
    memories = scale_memories(scorer.networks.generator)
    rates = {scale: memory.rates for scale, memory in memories.items()}
    train = evenly_spaced(scorer.cut(dataset.train.images), _TRAINING_IMAGES)
    near = diagnostics.nearest_blocks(scorer, train)
    test, cards = dataset.test, []
    chosen, errors = _seen(evaluation, scorer, test, positions)
    reads = diagnostics.block_reads(scorer, chosen, _LISTED_ITEMS) if positions else {}
    for index, position in enumerate(positions):
        own = {scale: BlockReads(*(one[index] for one in read)) for scale, read in reads.items()}
        pictures = {"input": chosen[index]}
        for scale, read in own.items():
            pictures[scale] = mosaic(read, near[scale], train, rates[scale])
        scale = list(own)[-1]
        detail, path = _worst_block(scale, own[scale], errors[index], rates[scale])
        name = test.names[position]
        tiles = [page.tile(plots.squeeze(one), key, name, path) for key, one in pictures.items()]
        cards.append(page.example(tiles, test.kinds[position], detail, name))
    return page.section(
        "What blocks read",
        *((page.note(_BLOCK_NOTE), page.group("examples", cards)) if cards else ()),
        element("h3", "Items used most"),
        page.note(_ITEM_NOTE),
        *_most_used(scorer, near, train, rates),
    )


def _seen(
    evaluation: Evaluation, scorer: Scorer, test: ImageSet, positions: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """The images at some positions as the networks take them, and their anomaly maps.

    Of a picture in tiles it is the tile with the largest error.
    """
    index = np.asarray(positions, int)
    images, maps = np.asarray(test.images[index]), evaluation.raw.anomaly_map[index]
    tiles, errors = scorer.cut(images), scorer.cut(maps[..., None])
    if isinstance(tiles, Tiles) and isinstance(errors, Tiles):
        maps = errors[:][..., 0]
        count = len(tiles.tiling.corners)
        worst = maps.max(axis=(1, 2)).reshape(-1, count).argmax(axis=1)
        chosen = np.arange(len(index)) * count + worst
        images, maps = tiles[chosen], maps[chosen]
    return images, maps


def mosaic(read: BlockReads, near: Neighbours, images: np.ndarray, rates: Rates) -> np.ndarray:
    """Replaces each block of an image by the training block nearest to the item it reads most.

    `read` holds the items and weights ``(Q, k)`` of one image's blocks, the largest weight first. A
    block without a weight above zero becomes black. `images` are the training images of `near`,
    uint8 ``(n, H, W, C)``. `rates` is ``(r_h, r_w, r_c)``. Only the first block along the channels
    is shown. Returns uint8 ``(H, W, C)``.
    """
    result = np.zeros_like(images[0])
    for block in range(0, len(read.items), rates[2]):
        if read.weights[block, 0] > 0:
            source = _training_block(near, int(read.items[block, 0]), images, rates)
            result[region(block, rates, result.shape)] = source
    return result


def region(block: int, rates: Rates, shape: Sequence[int]) -> tuple[slice, slice]:
    """The rows and columns of an image ``(H, W, ...)`` that a block of a feature map covers."""
    row, column = divmod(block // rates[2], rates[1])
    height, width = shape[0] // rates[0], shape[1] // rates[1]
    return (
        slice(row * height, (row + 1) * height),
        slice(column * width, (column + 1) * width),
    )


def _training_block(near: Neighbours, item: int, images: np.ndarray, rates: Rates) -> np.ndarray:
    source = images[near.image[item]]
    return source[region(int(near.block[item]), rates, source.shape)]


def _worst_block(scale: str, read: BlockReads, error: np.ndarray, rates: Rates) -> tuple[str, str]:
    """Describes the block with the largest error in words, and its outline as an SVG path."""
    down, across, channels = rates
    means = error.reshape(down, len(error) // down, across, -1).mean(axis=(1, 3))
    row, column = divmod(int(np.argmax(means)), across)
    block = (row * across + column) * channels
    pairs = zip(read.items[block], read.weights[block], strict=True)
    listed = ", ".join(f"item {item} with {weight:.2f}" for item, weight in pairs if weight > 0)
    place = f"block in row {row + 1}, column {column + 1} of {page.words(scale)}"
    rows, columns = region(block, rates, error.shape)
    path = f"M{columns.start} {rows.start}H{columns.stop}V{rows.stop}H{columns.start}Z"
    return f"{place}: {listed or 'all weights are zero'}", path


def _most_used(
    scorer: Scorer, near: dict[str, Neighbours], train: np.ndarray, rates: dict[str, Rates]
) -> list[Html]:
    chosen = {}
    usage = scorer.memory_use(train)
    for scale, banks in diagnostics.memory_items(scorer).items():
        weight = np.asarray(usage[scale].usage.weight).reshape(banks.shape[:2]).sum(axis=0)
        chosen[scale] = np.argsort(-weight, kind="stable")[:_SHOWN_ITEMS]
    figures = []
    for scale, decoded in diagnostics.decode_items(scorer, train, chosen).items():
        columns = []
        for item, picture in zip(chosen[scale], decoded, strict=True):
            block = plots.squeeze(_training_block(near[scale], item, train, rates[scale]))
            size = picture.shape[1], picture.shape[0]
            enlarged = Image.fromarray(block).resize(size, Image.Resampling.NEAREST)
            parts = [_framed(plots.to_pixels(picture)), _framed(np.asarray(enlarged))]
            columns.append(np.concatenate(parts))
        caption = f"{page.words(scale)}: items {', '.join(map(str, chosen[scale]))}"
        image = page.image(np.concatenate(columns, axis=1), caption)
        figures.append(element("figure", image, element("figcaption", caption)))
    return figures


def _framed(pixels: np.ndarray) -> np.ndarray:
    """Adds a white line at the right and at the bottom of ``(H, W)`` or ``(H, W, 3)`` pixels."""
    return np.pad(pixels, [(0, 1), (0, 1), (0, 0)][: pixels.ndim], constant_values=255)
