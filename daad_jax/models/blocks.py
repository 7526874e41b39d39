"""Division of a feature map into blocks, and its exact inverse (Section 3.1.2).

Both are reshapes and transposes: ``assemble(divide(x, r), x.shape, r) == x`` exactly.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax

from daad_jax.errors import ConfigError, shown

Rates = tuple[int, int, int]
"""Numbers of blocks, or of groups of blocks, along height, width and channels."""

PIXEL = "pixel"


def divide(feature_map: jax.Array, rates: Rates) -> jax.Array:
    """Divides a feature map ``(..., H, W, C)`` of any dtype into a grid of flattened blocks.

    The rates ``(r_h, r_w, r_c)`` are the numbers of blocks along each axis. A block is contiguous
    along every axis. Returns ``(..., Q, D)``: ``Q = r_h r_w r_c`` blocks in row-major order of the
    grid, with ``D = H W C / Q`` values each. Raises ValueError if a rate does not divide its
    dimension.
    """
    *lead, height, width, channels = feature_map.shape
    block = _block_shape((height, width, channels), rates)
    n = len(lead)
    split = (*lead, rates[0], block[0], rates[1], block[1], rates[2], block[2])
    order = (*range(n), n, n + 2, n + 4, n + 1, n + 3, n + 5)
    blocks = feature_map.reshape(split).transpose(order)
    return blocks.reshape(*lead, math.prod(rates), math.prod(block))


def assemble(blocks: jax.Array, shape: Sequence[int], rates: Rates) -> jax.Array:
    """Assembles blocks into a feature map; the exact inverse of `divide`.

    The blocks are ``(..., Q, D)``, in the order of `divide`, and the rates are those of `divide`.
    Only the last three entries of the shape, H, W and C, are used. Returns ``(..., H, W, C)``.
    Raises ValueError if a rate does not divide its dimension.
    """
    height, width, channels = shape[-3:]
    block = _block_shape((height, width, channels), rates)
    lead = blocks.shape[:-2]
    n = len(lead)
    order = (*range(n), n, n + 3, n + 1, n + 4, n + 2, n + 5)
    grid = blocks.reshape(*lead, *rates, *block).transpose(order)
    return grid.reshape(*lead, height, width, channels)


def group(blocks: jax.Array, rates: Rates, groups: Rates) -> jax.Array:
    """Divides block positions evenly into groups of neighbouring positions.

    The blocks are ``(B, Q, ...)`` in the order of `divide`, with the division rates ``(r_h, r_w,
    r_c)``. `groups` are the numbers of groups ``(g_h, g_w, g_c)`` along each axis. Returns ``(G, B,
    Q / G, ...)`` with ``G = g_h g_w g_c`` groups in row-major order. Raises ValueError if a number
    of groups does not divide its rate.
    """
    batch, _, *rest = blocks.shape
    inner = _block_shape(rates, groups)
    split = (batch, groups[0], inner[0], groups[1], inner[1], groups[2], inner[2], *rest)
    order = (1, 3, 5, 0, 2, 4, 6, *range(7, 7 + len(rest)))
    grid = blocks.reshape(split).transpose(order)
    return grid.reshape(math.prod(groups), batch, math.prod(inner), *rest)


def ungroup(grouped: jax.Array, rates: Rates, groups: Rates) -> jax.Array:
    """Returns grouped blocks to the order of `divide`; the exact inverse of `group`.

    Converts ``(G, B, Q / G, ...)`` to ``(B, Q, ...)``; rates and groups are those of `group`.
    Raises ValueError if a number of groups does not divide its rate.
    """
    _, batch, _, *rest = grouped.shape
    inner = _block_shape(rates, groups)
    order = (3, 0, 4, 1, 5, 2, 6, *range(7, 7 + len(rest)))
    grid = grouped.reshape(*groups, batch, *inner, *rest).transpose(order)
    return grid.reshape(batch, math.prod(rates), *rest)


def resolve_groups(banks: str, rates: Rates, index: int) -> Rates:
    """Converts ``memory.banks`` to numbers of groups of block positions at one scale.

    `banks` is "one", "position", or rows and columns of groups such as "2x2". The rates ``(r_h,
    r_w, r_c)`` and the index are those of the scale; 0 is the finest scale. Returns ``(g_h, g_w,
    g_c)``. Raises ConfigError if `banks` has another form or does not divide the blocks evenly.
    """
    if banks == "one":
        return (1, 1, 1)
    if banks == "position":
        return rates
    match = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", banks)
    if match is None:
        raise ConfigError(
            f"memory.banks: {shown(banks)} is not 'one', 'position', or rows and columns of groups "
            "such as '2x2'"
        )
    rows, columns = int(match[1]), int(match[2])
    if rates[0] % rows or rates[1] % columns:
        raise ConfigError(
            f"memory.banks: {banks} does not divide the {rates[0]} x {rates[1]} blocks of scale "
            f"{index + 1} evenly; choose divisors"
        )
    return (rows, columns, 1)


def resolve_rates(
    rates: Any, scales: Sequence[tuple[int, int, int]], carries_memory: Sequence[bool]
) -> tuple[Rates | None, ...]:
    """Converts ``memory.division_rates`` to division rates of each scale with a memory.

    Args:
        rates: ``"pixel"`` (blocks of 1 x 1 pixels with all channels), rates ``(r_h, r_w, r_c)``
            for every scale as in the paper, or a sequence with one of these for each scale.
        scales: ``(H, W, C)`` of each scale, finest first.
        carries_memory: whether each scale has a memory. The rates of scales without one are not
            checked.

    Returns:
        The rates ``(r_h, r_w, r_c)`` of each scale, or None for a scale without a memory.

    Raises:
        ConfigError: if the value has another form, or a rate does not divide its dimension; the
            message names the scale, its size and the rate.
    """
    if rates == PIXEL or _is_triple(rates):
        per_scale = [rates] * len(scales)
    elif isinstance(rates, (list, tuple)) and len(rates) == len(scales):
        per_scale = list(rates)
    else:
        raise ConfigError(
            f"memory.division_rates: {shown(rates)} is not 'pixel', three numbers (r_h, r_w, "
            f"r_c), or one of these for each of the {len(scales)} scales"
        )
    return tuple(
        _resolve_scale(rate, size, index) if has_memory else None
        for index, (rate, size, has_memory) in enumerate(
            zip(per_scale, scales, carries_memory, strict=True)
        )
    )


def _resolve_scale(rate: Any, size: tuple[int, int, int], index: int) -> Rates:
    height, width, channels = size
    if rate == PIXEL:
        return (height, width, 1)
    if not _is_triple(rate):
        raise ConfigError(
            f"memory.division_rates: {shown(rate)} for scale {index + 1} is not 'pixel' or three "
            "positive whole numbers (r_h, r_w, r_c)"
        )
    for name, dimension, r in zip(("height", "width", "channels"), size, rate, strict=True):
        if r > dimension or dimension % r:
            raise ConfigError(
                f"memory.division_rates: rate {r} does not divide the {name} of scale "
                f"{index + 1}, {height} x {width} x {channels}; choose a divisor of {dimension}"
            )
    return (rate[0], rate[1], rate[2])


def _is_triple(rates: Any) -> bool:
    return (
        isinstance(rates, (list, tuple))
        and len(rates) == 3
        and all(isinstance(r, int) and not isinstance(r, bool) and r > 0 for r in rates)
    )


def _block_shape(size: tuple[int, int, int], rates: Rates) -> tuple[int, int, int]:
    for dimension, rate in zip(size, rates, strict=True):
        if rate < 1 or dimension % rate:
            raise ValueError(f"rates {rates} do not divide a feature map of {size}")
    return (size[0] // rates[0], size[1] // rates[1], size[2] // rates[2])
