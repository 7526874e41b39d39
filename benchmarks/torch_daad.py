"""DAAD+ in plain PyTorch, for the comparison of `benchmarks/speed.py` and the reference test.

As strong as plain PyTorch gets: channels_last, fused Adam, one forward for both updates, gradients
of only what an update needs. Names follow the JAX package, whose weights `load_jax` converts.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from flax.traverse_util import flatten_dict
from torch import Tensor, nn
from torch.nn import functional

from daad_jax.config import Config
from daad_jax.models import discriminator
from daad_jax.models.build import build_networks

Rates = tuple[int, int, int]
_TIE_TOLERANCE = 1e-5


class BlockMemory(nn.Module):
    """`daad_jax.models.memory.BlockMemory` with the threshold rule."""

    def __init__(self, items: int, size: int, rates: Rates, temperature: float) -> None:
        """Makes a bank of `items` items of `size` values."""
        super().__init__()
        self.memory_items = nn.Parameter(torch.randn(items, size))
        self.rates, self.temperature = rates, temperature

    def forward(self, feature_map: Tensor) -> Tensor:
        """``(B, C, H, W)``, channels last in memory, to the same."""
        x = feature_map.permute(0, 2, 3, 1)
        batch, height, width, channels = x.shape
        (r, s, c), (h, w, d) = self.rates, (height, width, channels)
        grid = x.reshape(batch, r, h // r, s, w // s, c, d // c).permute(0, 1, 3, 5, 2, 4, 6)
        queries = grid.reshape(batch * r * s * c, -1)
        items = functional.normalize(self.memory_items, dim=-1, eps=1e-8)
        similarities = functional.normalize(queries, dim=-1, eps=1e-8) @ items.T
        weights = torch.softmax(similarities / self.temperature, dim=-1)
        floor = (1.0 - _TIE_TOLERANCE) / len(self.memory_items)
        weights = torch.where(weights >= floor, weights, 0.0)
        blocks = (weights @ self.memory_items).reshape(grid.shape)
        assembled = blocks.permute(0, 1, 4, 2, 5, 3, 6).reshape(x.shape)
        return assembled.permute(0, 3, 1, 2)


def _down(inputs: int, outputs: int, *, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 4, 2, 1, bias=bias)


def _up(inputs: int, outputs: int, *, bias: bool) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=bias)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.1)


def _mean_norm(difference: torch.Tensor) -> torch.Tensor:
    """The mean over images of the L2 norm, not squared."""
    return torch.linalg.vector_norm(difference.flatten(1), dim=1).mean()


class Generator(nn.Module):
    """`daad_jax.models.autoencoder.Autoencoder`: all connections have memories and are joined."""

    def __init__(self, config: Config) -> None:
        """Builds the generator of a config."""
        super().__init__()
        widths, channels, size = (
            config.model.widths,
            config.data.channels,
            config.data.network_size[0],
        )
        inputs = (channels, *widths[:-1])
        self.encoder = nn.ModuleList(
            _down(i, o, bias=k == 0) for k, (i, o) in enumerate(zip(inputs, widths, strict=True))
        )
        self.encoder_norms = nn.ModuleList(_norm(width) for width in widths[1:])
        self.memories = nn.ModuleList()
        memories = build_networks(config).generator.memories
        for index, (memory, width) in enumerate(zip(memories, widths, strict=True)):
            assert memory is not None
            rows = size >> (index + 1)
            values = rows * rows * width // int(np.prod(memory.rates))
            own = BlockMemory(memory.items, values, memory.rates, memory.temperature)
            self.memories.append(own)
        joined = [2 * width for width in widths[:-1]] + [widths[-1]]
        self.decoder = nn.ModuleList(
            _up(joined[k], inputs[k], bias=k == 0) for k in range(len(widths))
        )
        self.decoder_norms = nn.ModuleList(_norm(width) for width in widths[:-1])

    def forward(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` in [-1, 1] to the same."""
        x, assembled = images, []
        for index, (conv, memory) in enumerate(zip(self.encoder, self.memories, strict=True)):
            x = conv(x)
            if index:
                x = self.encoder_norms[index - 1](x)
            x = functional.leaky_relu(x, 0.2)
            assembled.append(memory(x))
        x = assembled[-1]
        for index in range(len(self.encoder) - 2, -1, -1):
            x = functional.relu(self.decoder_norms[index](self.decoder[index + 1](x)))
            x = torch.cat([x, assembled[index]], dim=1)
        return torch.tanh(self.decoder[0](x))


class Discriminator(nn.Module):
    """`daad_jax.models.discriminator.Discriminator`; f_D is the last stage's activation."""

    def __init__(self, config: Config) -> None:
        """Builds the discriminator of a config."""
        super().__init__()
        size, fields = config.data.network_size[0], config.discriminator
        stages = discriminator.stage_count(size, size)
        widths = [min(fields.width << k, fields.max_width) for k in range(stages)]
        inputs = [config.data.channels, *widths[:-1]]
        self.convs = nn.ModuleList(
            _down(i, o, bias=k == 0) for k, (i, o) in enumerate(zip(inputs, widths, strict=True))
        )
        self.norms = nn.ModuleList(_norm(width) for width in widths[1:])
        self.logit = nn.Linear((size >> stages) ** 2 * widths[-1], 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, C, H, W)`` in [-1, 1] to logits ``(B,)`` and f_D."""
        x = images
        for index, conv in enumerate(self.convs):
            x = conv(x)
            if index:
                x = self.norms[index - 1](x)
            x = functional.leaky_relu(x, 0.2)
        return self.logit(x.permute(0, 2, 3, 1).flatten(1))[:, 0], x


class Daad:
    """Both networks with their optimisers, a train step and scoring."""

    def __init__(self, config: Config, device: str, *, compiled: bool, bfloat16: bool) -> None:
        """Builds both networks on a device.

        Args:
            config: of setting daad_plus, with the defaults of everything but sizes.
            device: as PyTorch names it.
            compiled: whether `torch.compile` compiles networks and losses.
            bfloat16: whether networks compute under bfloat16 autocast.
        """
        self.device, self.compiled, self.bfloat16 = torch.device(device), compiled, bfloat16
        place: Any = {"device": self.device, "memory_format": torch.channels_last}
        self.generator = Generator(config).to(**place)
        self.discriminator = Discriminator(config).to(**place)
        self.weights = config.loss
        train = config.train
        settings: dict[str, Any] = {
            "lr": train.learning_rate,
            "betas": (train.beta1, train.beta2),
            "fused": True,
        }
        self.optimizers = [
            torch.optim.Adam(network.parameters(), **settings)
            for network in (self.generator, self.discriminator)
        ]
        self._flips = (config.data.flip_horizontal, config.data.flip_vertical)
        wrap: Callable[[Any], Any] = torch.compile if compiled else lambda module: module
        self._generate = wrap(self.generator)
        self._judge = wrap(self.discriminator)
        self._judge_frozen = wrap(self._apply_frozen)

    def prepare(self, images: np.ndarray | Tensor, *, flip: bool) -> Tensor:
        """uint8 ``(B, H, W, C)`` to ``(B, C, H, W)`` in [-1, 1], flipped at random on request."""
        x = torch.as_tensor(images).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        for chosen, axis in zip(self._flips, (3, 2), strict=True):
            if flip and chosen:
                coin = torch.rand(len(x), 1, 1, 1, device=self.device) < 0.5
                x = torch.where(coin, x.flip(axis), x)
        return x

    def losses_and_gradients(self, images: Tensor) -> tuple[Tensor, Tensor, Any, Any]:
        """Losses of both networks for prepared images, and each one's gradients by its own loss."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            reconstruction = self._generate(images)
            logits_real, features_real = self._judge(images)
            if self.compiled:
                # A compiled backward pass computes all gradients: two narrow passes cost less.
                logits_fake, features_fake = self._judge_frozen(reconstruction)
                logits_detached, _ = self._judge(reconstruction.detach())
            else:
                logits_fake, features_fake = self._judge(reconstruction)
                logits_detached = logits_fake
        reconstruction, logits_real, features_real, logits_fake, features_fake, logits_detached = (
            output.to(images.dtype)
            for output in (
                *(reconstruction, logits_real, features_real.detach()),
                *(logits_fake, features_fake, logits_detached),
            )
        )
        weights = self.weights
        generator_loss = (
            weights.rec * _mean_norm(reconstruction - images)
            + weights.adv * functional.softplus(-logits_fake).mean()
            + weights.ali * _mean_norm(features_fake - features_real)
        )
        discriminator_loss = (
            weights.adv
            * (functional.softplus(-logits_real) + functional.softplus(logits_detached)).mean()
        )
        gradients = [
            torch.autograd.grad(loss, list(network.parameters()), retain_graph=keep)
            for loss, network, keep in (
                (generator_loss, self.generator, not self.compiled),
                (discriminator_loss, self.discriminator, False),
            )
        ]
        return generator_loss, discriminator_loss, gradients[0], gradients[1]

    def _apply_frozen(self, x: Tensor) -> Any:
        frozen = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        # The statistics are updated by the discriminator's own passes.
        frozen |= {name: b.clone() for name, b in self.discriminator.named_buffers()}
        return torch.func.functional_call(self.discriminator, frozen, (x,))

    def train_step(self, images: np.ndarray | Tensor) -> tuple[Tensor, Tensor]:
        """One update of both networks on uint8 ``(B, H, W, C)``; returns both losses."""
        result = self.losses_and_gradients(self.prepare(images, flip=True))
        for network, optimizer, gradients in zip(
            (self.generator, self.discriminator), self.optimizers, result[2:], strict=True
        ):
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
        return result[0].detach(), result[1].detach()

    def score(self, images: np.ndarray | Tensor, blur: Tensor) -> dict[str, Tensor]:
        """`daad_jax.scoring.scorer.score_images` of uint8 ``(B, H, W, C)``; running statistics."""
        x = self.prepare(images, flip=False)
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)
        with torch.inference_mode(), autocast:
            reconstruction = self._generate(x)
            (_, real), (_, fake) = self._judge(x), self._judge(reconstruction)
            error = (x - reconstruction.float()).square().mean(dim=1)
            feature_error = (real.float() - fake.float()).square()
            with torch.autocast(self.device.type, enabled=False):
                smooth = blur @ error @ blur.T
            return {
                "reconstruction_score": error.mean(dim=(1, 2)),
                "anomaly_map": smooth,
                "reconstruction": reconstruction,
                "alignment_score": feature_error.mean(dim=(1, 2, 3)),
                "feature_map": feature_error.mean(dim=1),
            }

    def set_training(self, training: bool) -> None:
        """Batch statistics in training, running ones otherwise."""
        self.generator.train(training)
        self.discriminator.train(training)

    def load_jax(self, generator: Any, discriminator: Any) -> None:
        """Takes over the variables of `daad_jax.train.state.NetworkState` (arrays as NumPy)."""
        for network, variables in (
            (self.generator, generator),
            (self.discriminator, discriminator),
        ):
            converted = from_jax(variables["params"], variables["batch_stats"])
            missing = network.load_state_dict(converted, strict=False)
            unset = [key for key in missing.missing_keys if "num_batches" not in key]
            assert not unset, unset
            assert not missing.unexpected_keys, missing.unexpected_keys


def from_jax(params: Any, batch_stats: Any) -> dict[str, Tensor]:
    """Renames and transposes a network's parameters (or gradients) and statistics."""
    result: dict[str, np.ndarray] = {}
    for module, name, values in _leaves(params):
        values = np.asarray(values)
        part, _, index = module.rpartition("_")
        match part or module:
            case "encoder_conv" | "conv":
                prefix = "encoder" if part == "encoder_conv" else "convs"
                key = f"{prefix}.{int(index) - 1}.{_weight(name)}"
                result[key] = values.transpose(3, 2, 0, 1) if values.ndim == 4 else values
            case "decoder_conv":
                key = f"decoder.{int(index) - 1}.{_weight(name)}"
                result[key] = values.transpose(2, 3, 0, 1) if values.ndim == 4 else values
            case "memories":
                result[f"memories.{index}.memory_items"] = values
            case "logit":
                result[f"logit.{_weight(name)}"] = values.T
            case _:
                result[f"{_norm_name(module)}.{_weight(name)}"] = values
    for module, name, values in _leaves(batch_stats):
        result[f"{_norm_name(module)}.running_{name}"] = np.asarray(values)
    return {name: torch.from_numpy(np.array(values)) for name, values in result.items()}


def _leaves(tree: Any) -> Iterator[tuple[str, str, Any]]:
    """The arrays of a tree: the names of the modules around each, joined by "_", and its own."""
    for path, leaf in flatten_dict(tree).items():
        yield "_".join(path[:-1]), path[-1], leaf


def _weight(name: str) -> str:
    return "bias" if name == "bias" else "weight"


def _norm_name(module: str) -> str:
    """``encoder_norm_2`` is ``encoder_norms.0``; the discriminator's ``norm_2`` ``norms.0``."""
    name, _, index = module.rpartition("_")
    return f"{name}s.{int(index) - 2}"
