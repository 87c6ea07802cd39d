"""Which layers of a network are pruned: those of a scope, or all but the first and last ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn

from mmsw.errors import SparsityError
from mmsw.wording import listed

from .attach import compiled_scope
from .granularity import Granularity

_SPLIT = ('roi_head',)  # parts of a model whose children are heads of their own
# Names that toolboxes give to layers whose outputs are classes, boxes or scores.
_PREDICTS = re.compile(
    r'(?:^|_)(?:cls|reg|seg|logits?|obj|pred|centerness|iou|kernel|heatmap|wh|offset(?=_head)'
    r'|classes|classifier)(?:_|$)|^fc$'
)
_TABLES = (nn.Embedding, nn.EmbeddingBag)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class PrunableLayers:
    """Layers of a network that a pruning concerns.

    Attributes:
        layers: By name.
        left_out: By name of the layers that could be pruned but are not, the reason.
    """

    layers: dict[str, nn.Module]
    left_out: dict[str, str] = field(default_factory=dict)


def prunable_layers(
    net: nn.Module, granularity: Granularity, scope: str | None = None, include_all: bool = False
) -> PrunableLayers:
    """Choose the layers to prune.

    Layers with a ``weight`` of at least two dimensions can be pruned, but for tables (embeddings)
    and weights that several layers share. Without a scope, the first layer of the backbone and the
    layers that predict are left out: they have few weights and lose most. Those that predict are,
    in every head, the layers that toolboxes name so (``conv_seg``, ``fc_cls``, ``rpn_reg``); in a
    head without such names its last layer; in a network without a backbone its last layer.

    Args:
        net: A network; it is left as it is.
        granularity: What is pruned in one piece; layers that do not fit are left out.
        scope: Regular expression that the name of a weight (``backbone.layer1.0.conv1.weight``)
            contains a match of.
        include_all: Without a scope, leave no layer out but those that cannot be pruned so.

    Raises:
        SparsityError: If the scope is no regular expression or matches no such weight, or nothing
            is left to prune.
    """
    wanted = _in_scope(net, scope)
    left_out = {} if scope is not None or include_all else _left_out_by_default(net, wanted)
    shared, misfits = _shared(net), {}
    for name, layer in wanted.items():
        why = 'several layers share its weight' if name in shared else _misfit(layer, granularity)
        if why is not None:
            misfits[name] = why
    left_out = {**misfits, **left_out}
    layers = {name: layer for name, layer in wanted.items() if name not in left_out}
    if not layers:
        name, why = next(iter((misfits or left_out).items()))
        raise SparsityError(
            f'granularity {str(granularity)!r} fits none of {len(left_out)} layers that could be '
            f'pruned; of {name}: {why}. Choose another granularity or scope'
        )
    return PrunableLayers(layers, {name: left_out[name] for name in wanted if name in left_out})


def _candidates(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in net.named_modules():
        weight = module._parameters.get('weight')
        if (
            isinstance(weight, Tensor)
            and weight.ndim > 1
            and weight.is_floating_point()
            and not isinstance(module, _TABLES)
            and name
        ):
            yield name, module


def _in_scope(net: nn.Module, scope: str | None) -> dict[str, nn.Module]:
    matches = compiled_scope('' if scope is None else scope).search
    known = dict(_candidates(net))
    wanted = {name: layer for name, layer in known.items() if matches(f'{name}.weight')}
    if not wanted:
        asked = 'no layer' if scope is None else f'scope {scope!r} matches no layer'
        raise SparsityError(
            f'{asked} of the {type(net).__name__} that can be pruned; there are '
            f'{listed([f"{name}.weight" for name in known])}'
        )
    return wanted


def _left_out_by_default(net: nn.Module, layers: dict[str, nn.Module]) -> dict[str, str]:
    return {
        **dict.fromkeys(_last(net, layers), 'one of the last layers, which predict'),
        _first(layers): 'first layer, which sees the image',
    }


def _misfit(layer: nn.Module, granularity: Granularity) -> str | None:
    if granularity.is_of_groups and isinstance(layer, _TRANSPOSED):
        return 'a transposed convolution does not sum over the rows of its weight'
    return granularity.misfit(layer.weight.shape)


def _shared(net: nn.Module) -> set[str]:
    """Layers that own their weight together with others."""
    owners: dict[Tensor, list[str]] = {}
    for name, module in net.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(parameter, []).append(name)
    return {name for names in owners.values() if len(names) > 1 for name in names}


def _first(layers: dict[str, nn.Module]) -> str:
    """The first layer of the backbone, or of a network without one."""
    inside = [name for name in layers if name.startswith('backbone.')]
    return next(iter(inside or layers))


def _last(net: nn.Module, layers: dict[str, nn.Module]) -> list[str]:
    """The layers that predict."""
    if not hasattr(net, 'backbone'):
        return [list(layers)[-1]]
    heads: dict[str, list[str]] = {}
    for name in layers:
        head = _head_of(name)
        if head is not None:
            heads.setdefault(head, []).append(name)
    return [name for names in heads.values() for name in _predicting(names)]


def _head_of(name: str) -> str | None:
    """The head that a layer is in, or is: a part that is called so, or a layer beside the parts."""
    parts = name.split('.')
    if len(parts) > 1 and 'head' not in parts[0]:
        return None
    return '.'.join(parts[: 2 if parts[0] in _SPLIT else 1])


def _predicting(names: list[str]) -> list[str]:
    """Of the layers of one head."""
    found = [name for name in names if _PREDICTS.search(_own_name(name))]
    return found or names[-1:]


def _own_name(name: str) -> str:
    """What a layer is called where it stands, without numbers."""
    return next((part for part in reversed(name.split('.')) if not part.isdecimal()), '')
