"""Convolutions with a batch norm right behind them, in necks and heads: found, and made one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks import wrappers
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mmsw.sparsity.attach import MaskGate

# Whatever is derived from these may compute something else.
_PLAIN = (nn.Conv1d, nn.Conv2d, nn.Conv3d, wrappers.Conv2d, wrappers.Conv3d)
_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)
_BACKBONE = 'backbone.'


class Pair(NamedTuple):
    """A convolution, the batch norm behind it, and the module that has both.

    Attributes:
        conv: Name of the convolution in the model.
        norm: Name of the norm in the model.
        owner: The module that calls one after the other.
    """

    conv: str
    norm: str
    owner: nn.Module


def pairs_of(model: nn.Module) -> tuple[list[Pair], dict[str, str]]:
    """What can be made one outside of the backbone, and the norms that stay.

    A pair is found where it is certain that the norm gets what the convolution gives, and nobody
    else does: in mmcv's ``ConvModule`` and in ``nn.Sequential``.

    Returns:
        The pairs, and the norms that stay, by name, with the reason.
    """
    uses = _uses(model)
    modules = dict(model.named_modules(remove_duplicate=False))
    pairs, kept = [], {}
    for conv, norm, owner in _neighbours(modules):
        if why := _obstacle(modules[conv], modules[norm], uses):
            kept[norm] = why
        else:
            pairs.append(Pair(conv, norm, owner))
    found = {pair.norm for pair in pairs}
    for name, module in modules.items():
        if isinstance(module, _NORMS) and not name.startswith(_BACKBONE) and name not in found:
            other = 'it is not right behind a convolution'
            if not isinstance(module, _BatchNorm):
                other = 'its statistics are those of each image'
            kept.setdefault(name, other)
    order = list(modules)
    return pairs, {
        name: f'{type(modules[name]).__name__}, {kept[name]}'
        for name in sorted(kept, key=order.index)
    }


@torch.no_grad()
def fold_pair(model: nn.Module, pair: Pair) -> None:
    """Put the norm into the convolution, in place; an ``nn.Identity`` takes the norm's place."""
    conv, norm = model.get_submodule(pair.conv), model.get_submodule(pair.norm)
    weight, bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    conv.weight.copy_(weight)  # it stays the tensor that a mask watches
    conv.bias = nn.Parameter(bias, requires_grad=conv.weight.requires_grad)
    setattr(pair.owner, pair.norm.rpartition('.')[2], nn.Identity())
    if isinstance(pair.owner, ConvModule):
        pair.owner.efficient_conv_bn_eval_forward = None  # it would look for statistics


def _neighbours(modules: dict[str, nn.Module]) -> Iterator[Pair]:
    """Convolutions of any kind, and batch norms behind them."""
    for name, module in modules.items():
        if name.startswith(_BACKBONE):
            continue
        dot = f'{name}.' if name else ''
        if type(module).forward is ConvModule.forward:
            order = module.order
            behind = order.index('norm') - order.index('conv') == 1
            if behind and module.with_norm and isinstance(module.norm, _BatchNorm):
                yield Pair(f'{dot}conv', f'{dot}{module.norm_name}', module)
        elif type(module).forward is nn.Sequential.forward:
            children = list(module.named_children())
            for (first, conv), (second, norm) in pairwise(children):
                if isinstance(conv, nn.modules.conv._ConvNd) and isinstance(norm, _BatchNorm):
                    yield Pair(dot + first, dot + second, module)


def _obstacle(conv: nn.Module, norm: _BatchNorm, uses: Counter[int]) -> str:
    """Why a convolution and its norm cannot be one; ``''`` if they can."""
    if type(conv) not in _PLAIN:
        return f'it is behind a {type(conv).__name__}'
    if norm.running_mean is None:
        return 'it has no running statistics'
    if max(uses[id(conv)], uses[id(norm)], uses[id(conv.weight)]) > 1:
        return 'it or its convolution is used in several places'
    gates = (isinstance(hook, MaskGate) for hook in conv._forward_pre_hooks.values())
    watched = conv._forward_hooks or norm._forward_hooks or norm._forward_pre_hooks
    if watched or not all(gates):
        return 'a hook watches it or its convolution'
    return ''


def _uses(model: nn.Module) -> Counter[int]:
    """How many places each module and each parameter has in a model."""
    uses: Counter[int] = Counter()
    owners = set()
    for _, module in model.named_modules(remove_duplicate=False):
        uses[id(module)] += 1
        if id(module) not in owners:
            owners.add(id(module))
            uses.update(id(parameter) for parameter in module.parameters(recurse=False))
    return uses
