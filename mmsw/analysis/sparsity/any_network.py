"""What is pruned in the checkpoint of any network: zeros and masks, layer by layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from mmsw.checkpoint.pruned import plain_weights
from mmsw.checkpoint.release import tensors_of
from mmsw.errors import CheckpointError, SparsityError
from mmsw.sparsity import Density, Pattern, pattern_of
from mmsw.sparsity.dynamic_state import DYNAMIC_SPARSITY
from mmsw.sparsity.layer_masks import full_mask
from mmsw.sparsity.parts import by_part
from mmsw.summed import Summed

from .figures import density_data

_WEIGHT = '.weight'
_MASK = '.mask'
_WRAPPED = re.compile(r'^(?:module\.|_orig_mod\.)+')
_TELLING_SHARE = 0.01  # of zeros, from which on they are no chance


@dataclass(frozen=True)
class PrunedLayer:
    """A convolution or linear layer of a checkpoint.

    Attributes:
        name: Of the layer in the file, without ``module.``.
        kept: Which weights are not pruned, boolean ``[F, C, ...]``.
        pattern: The structure of the zeros.
        has_mask: Whether the file has a mask of the layer.
        kept_zeros: Weights that are exactly zero although the mask keeps them.
        lost_zeros: Weights that are not zero although the mask prunes them.
    """

    name: str
    kept: Tensor = field(repr=False)
    pattern: Pattern
    has_mask: bool = False
    kept_zeros: int = 0
    lost_zeros: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return tuple(self.kept.shape)

    @property
    def density(self) -> Density:
        """Filters and weights that are left."""
        filters, total = self.pattern.filters, self.pattern.total
        return Density(
            filters - self.pattern.filters_pruned, filters, total - self.pattern.pruned, total
        )

    @property
    def is_sparse(self) -> bool:
        """Whether anything is pruned."""
        return self.pattern.pruned > 0

    @property
    def is_notable(self) -> bool:
        """Whether there is more to say of it than that it is dense."""
        return self.is_sparse or bool(self.kept_zeros or self.lost_zeros)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        counts = ('has_mask', 'kept_zeros', 'lost_zeros')
        return dict(
            name=self.name,
            shape=list(self.shape),
            **density_data(self.density),
            pattern=asdict(self.pattern),
            **{name: getattr(self, name) for name in counts},
        )


@dataclass(frozen=True)
class LayersOfPart(Summed):
    """Counts of some layers together.

    Attributes:
        layers: Layers.
        sparse: Layers in which something is pruned.
        masked: Layers of which the file has a mask.
        density: Filters and weights that are left.
        channels_pruned: Input channels that are pruned in every filter of their layer.
        channels: Input channels.
        kept_zeros: See :class:`PrunedLayer`.
        lost_zeros: See :class:`PrunedLayer`.
    """

    layers: int = 0
    sparse: int = 0
    masked: int = 0
    density: Density = field(default_factory=Density)
    channels_pruned: int = 0
    channels: int = 0
    kept_zeros: int = 0
    lost_zeros: int = 0

    @classmethod
    def of(cls, layers: Sequence[PrunedLayer]) -> LayersOfPart:
        """Count layers."""
        return sum(
            (
                cls(
                    1,
                    int(layer.is_sparse),
                    int(layer.has_mask),
                    layer.density,
                    layer.pattern.channels_pruned,
                    layer.pattern.channels,
                    layer.kept_zeros,
                    layer.lost_zeros,
                )
                for layer in layers
            ),
            cls(),
        )


@dataclass(frozen=True)
class NetworkSparsity:
    """The layers of a checkpoint of any network, and what is pruned in them.

    Attributes:
        source: The file.
        layers: In the order of the file.
        others: Weights with zeros in number that belong to no such layer, and so can have no mask:
            share of zeros by name.
        notes: For the reader.
    """

    source: str
    layers: tuple[PrunedLayer, ...] = field(repr=False)
    others: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @cached_property
    def parts(self) -> dict[str, tuple[PrunedLayer, ...]]:
        """Layers by part of the model, see :func:`mmsw.sparsity.parts.part_of_layer`."""
        layers = {layer.name: layer for layer in self.layers}
        return {
            part: tuple(layers[name] for name in names) for part, names in by_part(layers).items()
        }

    @property
    def total(self) -> LayersOfPart:
        """All layers together."""
        return LayersOfPart.of(self.layers)

    def only(self, chosen: Callable[[PrunedLayer], bool]) -> NetworkSparsity:
        """The same with some of the layers."""
        layers = tuple(filter(chosen, self.layers))
        return NetworkSparsity(self.source, layers, self.others, self.notes)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        return dict(
            source=self.source,
            notes=list(self.notes),
            total=_part_data(self.layers),
            parts=[dict(name=name, **_part_data(own)) for name, own in self.parts.items()],
            layers=[layer.to_dict() for layer in self.layers],
            others=self.others,
        )


def read_any_network(checkpoint: Any, source: str) -> NetworkSparsity:
    """Find out what is pruned in a checkpoint of any network.

    Layers are what has a floating-point ``weight`` of at least two dimensions. A weight is pruned
    if it is exactly zero, or if a mask of the file says so: a tensor ``mask`` beside it, or the
    ``weight_mask`` of ``torch.nn.utils.prune``. In a file of a run with dynamic sparsity, masks
    alone decide: what has just grown is zero there.

    Args:
        checkpoint: What the file holds: a state dict, bare or under ``state_dict`` or ``model``,
            with or without ``module.`` before the names.
        source: Its name.

    Returns:
        The layers.

    Raises:
        CheckpointError: If the file holds no such layer, or its weights are parametrized.
    """
    tensors = {_WRAPPED.sub('', k): v for k, v in tensors_of(checkpoint, source).items()}
    notes = _drop_foreign_masks(tensors)
    state = plain_weights(tensors, source)
    grows = isinstance(checkpoint, Mapping) and DYNAMIC_SPARSITY in checkpoint
    if grows:
        notes.append(
            'of a run with dynamic sparsity: masks alone decide, since weights that have just '
            'grown are zero'
        )
    layers = tuple(
        _layer(key.removesuffix('weight').rstrip('.'), weight, state, grows)
        for key, weight in state.items()
        if _is_layer(key, weight)
    )
    if not layers:
        raise CheckpointError(
            f'{source} holds another network than can be looked at: none of its {len(state)} '
            f'tensors is the weight of a convolution or linear layer (the first is '
            f'{next(iter(state))!r})'
        )
    return NetworkSparsity(source, layers, _others(state), tuple(notes))


def _is_layer(key: str, weight: Tensor) -> bool:
    named = key.endswith(_WEIGHT) or key == 'weight'
    return named and weight.ndim > 1 and weight.is_floating_point() and weight.numel() > 0


def _layer(name: str, weight: Tensor, state: Mapping[str, Tensor], grows: bool) -> PrunedLayer:
    prefix = f'{name}.' if name else ''
    mask, kept = state.get(f'{prefix}mask'), weight != 0
    if mask is None:
        return PrunedLayer(name, kept, pattern_of(kept))
    left = mask if grows else kept & mask
    return PrunedLayer(
        name,
        left,
        pattern_of(left),
        has_mask=True,
        kept_zeros=0 if grows else int((mask & ~kept).sum()),
        lost_zeros=int((kept & ~mask).sum()),
    )


def _drop_foreign_masks(tensors: dict[str, Tensor]) -> list[str]:
    """Leave out what is called a mask and is none of the weight beside it; says so."""
    notes = []
    for key in [key for key in tensors if key.endswith(_MASK)]:
        weight = tensors.get(key.removesuffix(_MASK) + _WEIGHT)
        try:
            if weight is not None and weight.ndim > 1:
                full_mask(tensors[key], weight, key)
        except SparsityError:
            notes.append(f'{key} is no mask of the weight beside it, and is left out')
            del tensors[key]
    return notes


def _others(state: Mapping[str, Tensor]) -> dict[str, float]:
    """Weights of other names with zeros in number (``in_proj_weight`` of attention)."""
    found = {}
    for key, tensor in state.items():
        if not key.endswith('weight') or _is_layer(key, tensor) or tensor.ndim < 2:
            continue
        if tensor.is_floating_point() and tensor.numel():
            share = float((tensor == 0).double().mean())
            if share >= _TELLING_SHARE:
                found[key] = share
    return found


def _part_data(layers: Sequence[PrunedLayer]) -> dict[str, Any]:
    counts = LayersOfPart.of(layers)
    return {**asdict(counts), 'density': density_data(counts.density)}
