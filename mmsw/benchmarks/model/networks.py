"""The backbones that are compared, and the forms in which each of them can run."""

from __future__ import annotations

import copy
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from mmsw.models.backbones import ShiftWiseNet, SLaK
from mmsw.wording import short

from .convnext import ConvNeXt
from .exported import EXPORTED, Start

EVAL, TRAINING = 'eval', 'training step'
MODES = (EVAL, TRAINING)
CONVNEXT = 'ConvNeXt-T'
_TOOLBOXES = ('mmseg', 'mmdet')  # both have the same ResNet and Swin Transformer
_ALL_MAPS = (0, 1, 2, 3)
_CALIBRATED_CROP = 256
_LAYER_SCALE = 0.3


class Form(NamedTuple):
    """A way to run a network.

    Attributes:
        name: What is added to the name of the network; ``''`` for the training form.
        make: The network in this form, from the network, which it leaves as it is.
        modes: What the form is for, of ``MODES``.
        main: Whether a quick run has it.
        start: What is called instead of the network in this form, for images of one size.
        packages: What that needs.
    """

    name: str
    make: Callable[[nn.Module], nn.Module]
    modes: Sequence[str] = MODES
    main: bool = True
    start: Start | None = None
    packages: Sequence[str] = ()


TRAINING_FORM = Form('', lambda network: network)


@dataclass(frozen=True)
class Network:
    """A backbone.

    Attributes:
        name: Name in the table.
        build: Builds it with random weights; raises ``ImportError`` where a package is missing.
        forms: How it can run, the training form first.
        main: In which modes a quick run has it.
        source: Whose code it is.
    """

    name: str
    build: Callable[[], nn.Module]
    forms: Sequence[Form] = (TRAINING_FORM,)
    main: Sequence[str] = MODES
    source: str = 'mmsw'


def networks() -> list[Network]:
    """All that are compared: this project's, then what a user would pick instead."""
    own = [
        Network(f'SW-{arch[0].upper()} {version}', partial(_own, arch, version), OWN_FORMS, main)
        for arch, version, main in (
            ('tiny', 'v1', (EVAL,)),
            ('tiny', 'v2', MODES),
            ('small', 'v1', ()),
            ('small', 'v2', ()),
        )
    ]
    slak = [
        Network(name, partial(_slak, shift_wise), SLAK_FORMS, (EVAL,))
        for name, shift_wise in (('SLaK-T', False), ('equ-SLaK-T', True))
    ]
    return [*own, *slak, _convnext(), *(_of_toolboxes(*entry) for entry in _OTHERS), _replknet()]


def folded(network: nn.Module) -> nn.Module:
    """A copy in the form for inference."""
    network = copy.deepcopy(network)
    network.eval()
    network.switch_to_deploy()
    return network


def with_blocks(network: ShiftWiseNet, **attributes: bool) -> ShiftWiseNet:
    """A copy whose blocks have other attributes."""
    network = copy.deepcopy(network)
    for stage in network.stages:
        for block in stage:
            for name, value in attributes.items():
                setattr(block, name, value)
    return network


NOT_FUSED = ', not fused'
OWN_FORMS = (
    TRAINING_FORM,
    Form(', folded', folded, (EVAL,)),
    Form(NOT_FUSED, partial(with_blocks, fused=False), (TRAINING,)),
    Form(', hidden maps recomputed', partial(with_blocks, recompute=True), (TRAINING,)),
    Form(', blocks recomputed', partial(with_blocks, with_cp=True), (TRAINING,), main=False),
    *(
        Form(f', folded, {name}', folded, (EVAL,), False, start, packages)
        for name, (start, packages) in EXPORTED.items()
    ),
)
SLAK_FORMS = OWN_FORMS[:2]  # the training form, and folded


def enliven(network: nn.Module, seed: int) -> nn.Module:
    """Draw weights, norms and layer scales so that every block adds a part of what its map has.

    A fresh block hardly adds to its map, so a wrong one would not be noticed. Batch norms get the
    statistics of a random image, without which maps would grow from block to block. They grow a
    little on images of another size; blocks that added more would make rounding errors grow, too.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    with torch.no_grad():
        for name, tensor in state.items():
            if not tensor.dim() or not tensor.is_floating_point():
                continue
            drawn = torch.rand(tensor.shape, generator=generator)
            if tensor.dim() > 1:
                drawn = (2 * drawn - 1) * (3 / tensor[0].numel()) ** 0.5  # as large as its input
            elif name.endswith(('bias', 'beta')):
                drawn = 0.2 * drawn - 0.1
            else:
                drawn += 0.5
                if name.endswith('.gamma') and not name.endswith('grn.gamma'):
                    drawn *= _LAYER_SCALE
            tensor.copy_(drawn)
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        kept = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        network.train()
        network(torch.randn(1, 3, _CALIBRATED_CROP, _CALIBRATED_CROP, generator=generator))
        network.eval()
        for norm, momentum in zip(norms, kept, strict=True):
            norm.momentum = momentum
    return network


def _own(arch: str, version: str) -> nn.Module:
    return enliven(ShiftWiseNet(arch, version), seed=0)


def _slak(shift_wise: bool) -> nn.Module:
    return enliven(SLaK('tiny', shift_wise=shift_wise), seed=0)


def _convnext() -> Network:
    def build() -> nn.Module:
        return _imported(
            ('mmpretrain',), 'ConvNeXt', arch='tiny', out_indices=_ALL_MAPS,
            gap_before_final_norm=False,
        )  # fmt: skip

    if importlib.util.find_spec('mmpretrain') is None:
        return Network(CONVNEXT, ConvNeXt, source='plain torch')
    return Network(CONVNEXT, build, source='mmpretrain')


def _replknet() -> Network:
    def build() -> nn.Module:
        return _imported(
            ('mmpretrain',), 'RepLKNet', arch='31B', out_indices=_ALL_MAPS, drop_path_rate=0.0
        )

    forms = (TRAINING_FORM, Form(', re-parameterised', folded, (EVAL,)))
    return Network('RepLKNet-31B', build, forms, (EVAL,), 'mmpretrain')


_OTHERS: Sequence[tuple[str, Sequence[str], str, dict[str, Any]]] = (
    ('ResNet-50', _TOOLBOXES, 'ResNet', dict(depth=50)),
    ('Swin-T', _TOOLBOXES, 'SwinTransformer', dict(drop_path_rate=0.0)),
    (
        'MiT-B2', ('mmseg',), 'MixVisionTransformer',
        dict(
            embed_dims=64, num_layers=[3, 4, 6, 3], num_heads=[1, 2, 5, 8], drop_path_rate=0.0
        ),
    ),
    ('MSCAN-T', ('mmseg',), 'MSCAN', dict(embed_dims=[32, 64, 160, 256], depths=[3, 3, 5, 2])),
)  # fmt: skip


def _of_toolboxes(
    name: str, packages: Sequence[str], kind: str, settings: dict[str, Any]
) -> Network:
    build = partial(_imported, packages, kind, **settings)
    return Network(name, build, main=(EVAL,), source=' or '.join(packages))


def _imported(packages: Sequence[str], kind: str, **settings: Any) -> nn.Module:
    """A backbone of the first of some toolboxes that is there.

    Raises:
        ImportError: If none is, or its own imports fail.
    """
    problems = []
    for package in packages:
        if importlib.util.find_spec(package) is None:
            problems.append(f'{package} is not installed')
            continue
        try:
            module = importlib.import_module(f'{package}.models.backbones')
        except ImportError as error:
            problems.append(f'{package} cannot be imported ({short(error)})')
        else:
            return getattr(module, kind)(**settings)
    raise ImportError('; '.join(problems))
