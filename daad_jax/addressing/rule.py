"""`Rule`, the base class of addressing rules, and the values that rules receive and return."""

import dataclasses
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from daad_jax.addressing.similarity import Compare, cosine, matmul
from daad_jax.errors import ConfigError, shown

Arrays = Mapping[str, jax.Array]

DIAGNOSTICS = frozenset(
    ("active_items", "largest_weight", "entropy", "dead_reads", "unused_items", "perplexity")
)
"""Metrics that every memory logs as ``memory/<scale>/<name>``; a rule's loss needs another name."""

_RULES = f"{__package__}.rules."
_KINDS: dict[str, tuple[type, ...]] = {"bool": (bool,), "int": (int,), "float": (int, float)}
_BOUNDS: dict[str, Callable[[float, float], bool]] = {
    "at_least": operator.ge,
    "at_most": operator.le,
    "above": operator.gt,
    "below": operator.lt,
}


class Request(NamedTuple):
    """One read.

    Attributes:
        query: ``(D,)``, one flattened block.
        items: ``(N, D)``, the bank.
        compare: the similarity divided by the temperature: ``(D,), (n, D) -> (n,)``.
        params: the rule's learned arrays, see `Rule.init_params`.
        state: the rule's state, see `Rule.init_state`.
        key: random key of this read; None without noise, as in evaluation.
    """

    query: jax.Array
    items: jax.Array
    compare: Compare
    params: Arrays
    state: Arrays
    key: jax.Array | None


class Answer(NamedTuple):
    """The result of one read: the block ``(D,)`` that replaces the query, and weights ``(N,)``."""

    block: jax.Array
    weights: jax.Array


class BatchReads(NamedTuple):
    """All M reads of one bank in a batch.

    The shapes are queries ``(M, D)``, items ``(N, D)`` and weights ``(M, N)``.
    """

    queries: jax.Array
    items: jax.Array
    weights: jax.Array


class Properties(NamedTuple):
    """Properties that a rule declares; `daad_jax.addressing.contract` checks them.

    Attributes:
        total: the sum of the weights of a read: "one", "at_most_one" or "any".
        equivariant: whether permuting the items permutes the weights.
        nearest_when_cold: whether a read approaches the most similar item as the temperature
            approaches 0.
        most_active: the largest number of items with a weight above zero, or None.
        straight_through: whether the gradient of the block is passed to the query unchanged.
    """

    total: str = "any"
    equivariant: bool = False
    nearest_when_cold: bool = False
    most_active: int | None = None
    straight_through: bool = False


def hyperparameter(default: Any, **bounds: float) -> Any:
    """Declares a field of a rule whose value is checked when the rule is made.

    The bounds are any of ``at_least``, ``at_most``, ``above`` and ``below``.
    """
    return dataclasses.field(default=default, metadata=bounds)


@dataclasses.dataclass(frozen=True)
class Rule:
    """Base class of addressing rules: how one query reads the items of a bank.

    A rule is a frozen dataclass whose fields are its hyperparameters, so rules are hashable and
    compare by value. A simple rule overrides `weigh` only. Every method is pure. A rule with
    random noise sets `needs_key`; its reads then get a random key in training.

    Fields annotated ``bool``, ``int`` or ``float`` are checked when a rule is made. A wrong type, a
    number that is not finite or a value outside the bounds of `hyperparameter` raises ConfigError.
    """

    needs_key: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Checks the hyperparameters."""
        for field in dataclasses.fields(self):
            _check_field(self, field)

    @property
    def properties(self) -> Properties:
        """The declared properties; nothing is declared by default."""
        return Properties()

    @property
    def reads_whole_batch(self) -> bool:
        """Whether the rule has losses or an update, which need all weights of a batch at once."""
        own = type(self)
        return own.losses is not Rule.losses or own.update is not Rule.update

    def weigh(self, similarities: jax.Array, params: Arrays) -> jax.Array:
        """Returns the addressing weights of one query.

        The similarities ``(N,)`` are finite and already divided by the temperature. `params` are
        the learned arrays of `init_params`. The weights ``(N,)`` must not be negative.
        """
        raise NotImplementedError(f"{type(self).__name__} overrides neither weigh nor read")

    def read(self, request: Request) -> Answer:
        """Reads the bank with one query.

        By default the weights are `weigh` of the similarities and the block is the weighted sum
        of the items.
        """
        weights = self.weigh(request.compare(request.query, request.items), request.params)
        return Answer(matmul(weights, request.items), weights)

    def init_params(self, key: jax.Array, items: jax.Array) -> dict[str, jax.Array]:
        """Initial values of arrays that the optimiser learns besides the items ``(N, D)``."""
        return {}

    def init_state(self, items: jax.Array) -> dict[str, jax.Array]:
        """Initial values of float32 arrays that `update` changes and no gradient does.

        An entry ``memory_items`` of shape ``(N, D)`` replaces the learned items ``(N, D)``.
        """
        return {}

    def update(self, state: Arrays, reads: BatchReads) -> dict[str, jax.Array]:
        """Returns the state after a training step, with the same names, shapes and dtypes."""
        return dict(state)

    def losses(self, reads: BatchReads) -> dict[str, jax.Array]:
        """Returns scalar losses by name, which training adds to the generator's loss."""
        return {}

    def loss_weights(self) -> dict[str, float]:
        """Weights of the losses: ``NAME_loss`` has the field ``NAME_weight``, or 1 without one."""
        weights = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        suffix = "_weight"
        return {
            f"{name.removesuffix(suffix)}_loss": value
            for name, value in weights.items()
            if name.endswith(suffix)
        }

    def check(self, items: int, size: int, *, frozen: bool) -> None:
        """Checks that the rule can read a bank of `items` items with `size` values each.

        Only shapes are traced; nothing is computed. Raises ConfigError if a read, a loss or an
        update fails or has wrong shapes. With `frozen` the items must keep their initial values, so
        a rule that moves them raises ConfigError too.
        """
        about = f"memory.addressing: {self}: with {items} items of {size} values"
        shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((size,), (items, size))]
        try:
            answer, losses, state, updated = jax.eval_shape(self._trace, *shapes)
            read = answer.block.shape, answer.weights.shape
            losses = {name: loss.shape for name, loss in losses.items()}
        except Exception as error:  # A custom rule can fail in any way.
            reason = (str(error).splitlines() or [""])[0]
            raise ConfigError(f"{about} a read fails: {type(error).__name__}: {reason}") from error
        if read != ((size,), (items,)):
            raise ConfigError(
                f"{about} a read returns a block {read[0]} and weights {read[1]}; return shapes "
                f"{(size,)} and {(items,)}"
            )
        for name, shape in losses.items():
            if shape != () or name in DIAGNOSTICS:
                wrong = f"has shape {shape}; return a scalar" if shape else "is a reserved name"
                raise ConfigError(f"{about} the loss {shown(name)} {wrong}")
        if updated != state:
            raise ConfigError(f"{about} update changes the names, shapes or dtypes of the state")
        if frozen and "memory_items" in state:
            raise ConfigError(f"memory.frozen: {self} moves the items; choose another rule")

    def _trace(
        self, query: jax.Array, items: jax.Array
    ) -> tuple[Answer, dict[str, jax.Array], dict[str, jax.Array], dict[str, jax.Array]]:
        """The read with noise, the losses, and the state before and after an update.

        Also reads without noise, so that an error there is found.
        """
        key = jax.random.key(0)
        params, state = self.init_params(key, items), dict(self.init_state(items))
        bank = state.get("memory_items", items)
        request = Request(query, bank, cosine, params, state, key if self.needs_key else None)
        answer = Answer(*self.read(request))
        self.read(request._replace(key=None))
        reads = BatchReads(query[None], bank, answer.weights[None])
        return answer, self.losses(reads), state, dict(self.update(state, reads))

    def __str__(self) -> str:
        """The rule as text that `daad_jax.addressing.parse_rule` reads back, without defaults."""
        own = type(self)
        name = f"{own.__module__}:{own.__qualname__}"
        if own.__module__.startswith(_RULES):
            name = rule_name(own)
        values = ((field, getattr(self, field.name)) for field in dataclasses.fields(self))
        return call_text(name, {f.name: value for f, value in values if value != f.default})


@dataclasses.dataclass(frozen=True)
class Weighing(Rule):
    """A rule made of a function from similarities ``(N,)`` to weights ``(N,)``.

    The function must be pure. It is called as ``function(similarities, **arguments)``; `arguments`
    are pairs of a name and a hashable value. A rule that was read from text has the `name`
    ``module:function``; comparisons ignore it.
    """

    function: Callable[..., jax.Array]
    arguments: tuple[tuple[str, Any], ...] = ()
    name: str = dataclasses.field(default="", compare=False)

    def weigh(self, similarities: jax.Array, params: Arrays) -> jax.Array:
        """Calls the function with the similarities ``(N,)``."""
        return self.function(similarities, **dict(self.arguments))

    def __str__(self) -> str:
        """The rule as text that `daad_jax.addressing.parse_rule` reads back."""
        module = getattr(self.function, "__module__", "")
        name = f"{module}:{getattr(self.function, '__qualname__', 'function')}"
        return call_text(self.name or name, dict(self.arguments))


def rule_name(rule: type[Rule]) -> str:
    """The name of a rule's class in text: ``top_k`` for ``TopK``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", rule.__name__).lower()


def call_text(name: str, arguments: Mapping[str, Any]) -> str:
    """Returns ``name(a=1, b=2)``, or ``name`` without arguments."""
    values = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return f"{name}({values})" if values else name


def _check_field(rule: Rule, field: dataclasses.Field[Any]) -> None:
    kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", "")
    if kind not in _KINDS:
        return
    value = getattr(rule, field.name)
    about = f"memory.addressing: {rule_name(type(rule))}: {field.name}={shown(value)}"
    is_kind = isinstance(value, _KINDS[kind]) and isinstance(value, bool) == (kind == "bool")
    if not is_kind:
        raise ConfigError(f"{about} must be of type {kind}")
    if kind == "float":
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise ConfigError(f"{about} must be finite")
        object.__setattr__(rule, field.name, value)  # 1 and 1.0 give the same text
    if not all(_BOUNDS[name](value, bound) for name, bound in field.metadata.items()):
        bounds = " and ".join(f"{n.replace('_', ' ')} {b}" for n, b in field.metadata.items())
        raise ConfigError(f"{about} must be {bounds}")
