"""Inputs of the oracle tests and formulas in NumPy, independent of the package."""

import jax
import jax.numpy as jnp
import numpy as np

KEY = jax.random.key(11)
SIMILARITIES = np.asarray(
    jax.random.normal(KEY, (6, 40)) * jnp.array([[0.1], [0.5], [1], [2], [4], [9]])
)
QUERIES = np.asarray(jax.random.normal(jax.random.fold_in(KEY, 1), (30, 6)), np.float64)
ITEMS = np.asarray(jax.random.normal(jax.random.fold_in(KEY, 2), (9, 6)), np.float64)


def rows(function):
    """A function of one row, under jit and vmap, on `SIMILARITIES`."""
    return np.asarray(jax.jit(jax.vmap(function))(SIMILARITIES), np.float64)


def weighed(rule):
    """The weights of a rule for each row of `SIMILARITIES`."""
    return rows(lambda similarities: rule.weigh(similarities, {}))


def numpy_softmax(x):
    x = np.asarray(x, np.float64)
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def numpy_entmax(x, alpha):
    """By plain bisection in float64."""
    x = (alpha - 1) * np.asarray(x, np.float64)
    low, high = x.max() - 1, x.max()
    for _ in range(200):
        middle = (low + high) / 2
        above = (np.maximum(x - middle, 0) ** (1 / (alpha - 1))).sum() >= 1
        low, high = (middle, high) if above else (low, middle)
    return np.maximum(x - low, 0) ** (1 / (alpha - 1))


def one_hot(indices, count):
    return np.eye(count)[indices]


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)
