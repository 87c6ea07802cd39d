"""Layer-wise learning rate decay: every parameter in the group where it belongs, none lost."""

import copy
import logging

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn

from mmsw.engine.optimizers import LayerDepthDecayOptimWrapperConstructor
from mmsw.models import ShiftWiseNet

LR, DECAY, WEIGHT_DECAY = 1.0, 0.5, 0.1
NO_DECAY = dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0)


class ToyBackbone(nn.Module):
    """Three depths: stem, two blocks; whatever else it has comes last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 2, 1)
        self.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2, bias=False)])
        self.norm = nn.BatchNorm2d(2)
        self.scale = nn.Parameter(torch.ones(2))

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        assert param_name.startswith(prefix)
        kind, *rest = param_name[len(prefix) :].split('.')
        if kind == 'blocks':
            return 1 + int(rest[0]), 4
        return (0 if kind == 'stem' else 3), 4


class ToyModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = ToyBackbone()
        self.head = nn.Linear(2, 2)
        self.table = nn.Parameter(torch.ones(2, 2))


class Bare(nn.Module):
    """A wrapper under a name that no code could know."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


def build(model: nn.Module, lr: float | None = LR, **paramwise) -> OptimWrapper:
    optimizer = dict(type='AdamW', weight_decay=WEIGHT_DECAY)
    if lr is not None:
        optimizer['lr'] = lr
    return build_optim_wrapper(
        model,
        dict(
            optimizer=optimizer,
            constructor='LayerDepthDecayOptimWrapperConstructor',
            paramwise_cfg=paramwise,
        ),
    )


def settings(model: nn.Module, wrapper: OptimWrapper) -> dict[str, tuple[float, float]]:
    """Name -> (learning rate, weight decay), each parameter exactly once."""
    names = {id(param): name for name, param in model.named_parameters()}
    found = {}
    for group in wrapper.optimizer.param_groups:
        for param in group['params']:
            name = names[id(param)]
            assert name not in found
            found[name] = (group['lr'], group['weight_decay'])
    return found


def test_full_table() -> None:
    model = ToyModel()
    wrapper = build(model, decay_rate=DECAY, **NO_DECAY)
    assert settings(model, wrapper) == {
        'backbone.stem.weight': (0.125, WEIGHT_DECAY),
        'backbone.stem.bias': (0.125, 0.0),
        'backbone.blocks.0.weight': (0.25, WEIGHT_DECAY),
        'backbone.blocks.0.bias': (0.25, 0.0),
        'backbone.blocks.1.weight': (0.5, WEIGHT_DECAY),
        'backbone.norm.weight': (1.0, 0.0),
        'backbone.norm.bias': (1.0, 0.0),
        'backbone.scale': (1.0, 0.0),
        'head.weight': (1.0, WEIGHT_DECAY),
        'head.bias': (1.0, 0.0),
        'table': (1.0, WEIGHT_DECAY),
    }
    groups = [(group['lr'], group['weight_decay']) for group in wrapper.optimizer.param_groups]
    assert len(groups) == len(set(groups)) == 7


def test_rate_one_is_no_layer_wise_decay() -> None:
    model = ToyModel()
    wrapper = build(model, decay_rate=1, **NO_DECAY)
    found = settings(model, wrapper)
    assert {lr for lr, _ in found.values()} == {LR}
    assert {name for name, (_, decay) in found.items() if decay} == {
        name for name, param in model.named_parameters() if param.ndim > 1
    }
    assert len(wrapper.optimizer.param_groups) == 2


def test_custom_keys_multiply() -> None:
    model = ToyModel()
    keys = {'blocks.0': dict(lr_mult=10.0, decay_mult=2.0), 'head': dict(lr_mult=3.0)}
    found = settings(model, build(model, decay_rate=DECAY, custom_keys=keys))
    assert found['backbone.blocks.0.weight'] == (2.5, 2 * WEIGHT_DECAY)
    assert found['backbone.blocks.1.weight'] == (0.5, WEIGHT_DECAY)
    assert found['head.weight'] == (3.0, WEIGHT_DECAY)
    assert found['table'] == (1.0, WEIGHT_DECAY)


@pytest.mark.parametrize('wrap', [nn.DataParallel, Bare, lambda model: model.backbone])
def test_backbone_is_found_wherever_it_is(wrap) -> None:
    model = wrap(ToyModel())
    found = settings(model, build(model, decay_rate=DECAY))
    assert len(found) == len(list(model.parameters()))
    (stem,) = (name for name in found if name.endswith('stem.weight'))
    assert found[stem] == (0.125, WEIGHT_DECAY)


def test_two_backbones_have_their_own_depths() -> None:
    model = nn.ModuleDict({'shallow': ToyBackbone(), 'deep': ToyBackbone()})
    model['deep'].get_layer_depth = lambda name, prefix: (0, 3)
    found = settings(model, build(model, decay_rate=DECAY))
    assert found['shallow.stem.weight'][0] == 0.125
    assert {lr for name, (lr, _) in found.items() if name.startswith('deep.')} == {0.25}


def test_frozen_parameters_are_left_out_and_no_others() -> None:
    model = ToyModel()
    model.backbone.stem.requires_grad_(False)
    found = settings(model, build(model, decay_rate=DECAY))
    assert set(found) == {name for name, param in model.named_parameters() if param.requires_grad}
    assert len(found) == 9


def test_config_is_left_unchanged() -> None:
    cfg = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, weight_decay=0.1))
    paramwise = dict(decay_rate=0.9, custom_keys={'head': dict(lr_mult=2.0)}, **NO_DECAY)
    before = copy.deepcopy((cfg, paramwise))
    constructor = LayerDepthDecayOptimWrapperConstructor(cfg, paramwise)
    constructor(ToyModel())
    constructor(ToyModel())
    assert (cfg, paramwise) == before


def test_groups_are_logged_as_a_summary() -> None:
    lines: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        build(ToyModel(), decay_rate=DECAY, **NO_DECAY)
    finally:
        logger.removeHandler(handler)
    assert len(lines) == 1
    assert 'layer-wise decay 0.5 in backbone' in lines[0]
    assert '  lr 0.125, weight_decay 0.1: 1 tensors, 6 values' in lines[0]
    assert not logger.filters


def test_shift_wise_net() -> None:
    net = ShiftWiseNet(arch=dict(depths=[1, 1, 4, 1], dims=[8, 8, 8, 8]), big_kernels=(7, 7, 5, 3))
    model = nn.ModuleDict({'backbone': net, 'head': nn.Linear(2, 2)})
    found = settings(model, build(model, decay_rate=DECAY, **NO_DECAY))
    assert len(found) == len(list(model.parameters()))
    # stem, stages 1 and 2, two layers of the third, the last stage, then norms and head
    assert sorted({lr for lr, _ in found.values()}) == [DECAY**n for n in range(6, -1, -1)]
    assert found['head.weight'][0] == found['backbone.norm3.weight'][0] == LR
    kernels = [name for name in found if '.paths.' in name]
    assert len(kernels) == 7 * net.num_paths
    assert all(found[name][1] == WEIGHT_DECAY for name in kernels)


def test_layers_of_a_recipe_for_a_deeper_network() -> None:
    net = ShiftWiseNet(arch=dict(depths=[1, 1, 4, 1], dims=[8, 8, 8, 8]), big_kernels=(7, 7, 5, 3))
    found = settings(net, build(net, decay_rate=DECAY, num_layers=7))
    by_layer = {  # the network has five layers between the stem and the output norms
        'downsample_layers.0.0.weight': DECAY**8,
        'stages.0.0.gamma': DECAY**7,
        'stages.1.0.gamma': DECAY**6,
        'stages.2.0.gamma': DECAY**5,
        'stages.2.3.gamma': DECAY**4,
        'downsample_layers.3.0.weight': DECAY,
        'stages.3.0.gamma': DECAY,
        'norm0.weight': LR,
    }
    assert {name: found[name][0] for name in by_layer} == by_layer
    own = settings(net, build(net, decay_rate=DECAY, num_layers=5))
    assert own == settings(net, build(net, decay_rate=DECAY))


def test_too_few_layers_are_refused() -> None:
    net = ShiftWiseNet(arch=dict(depths=[1, 1, 4, 1], dims=[8, 8, 8, 8]), big_kernels=(7, 7, 5, 3))
    with pytest.raises(
        ValueError, match=r'num_layers=4.*less than the 5 layers of the ShiftWiseNet'
    ):
        build(net, decay_rate=DECAY, num_layers=4)
    with pytest.raises(ValueError, match=r"num_layers.*must be an integer, got '12'"):
        build(net, decay_rate=DECAY, num_layers='12')


@pytest.mark.parametrize('rate', [None, 0, -0.5, 1.5, True, '0.9', float('nan')])
def test_bad_decay_rate_is_refused(rate: object) -> None:
    with pytest.raises(ValueError, match=rf'decay_rate in \(0, 1\].*got {rate!r}'):
        build(ToyModel(), decay_rate=rate)


def test_missing_decay_rate_is_refused() -> None:
    with pytest.raises(ValueError, match='decay_rate'):
        build(ToyModel(), **NO_DECAY)


def test_model_without_depths_is_refused() -> None:
    with pytest.raises(ValueError, match='Linear has no module with get_layer_depth'):
        build(nn.Linear(2, 2), decay_rate=DECAY)


def test_nothing_to_scale_is_refused() -> None:
    with pytest.raises(ValueError, match='has none'):
        build(ToyModel(), lr=None, decay_rate=DECAY)


def test_depth_out_of_range_is_refused() -> None:
    model = ToyModel()
    model.backbone.get_layer_depth = lambda name, prefix: (4, 4)
    with pytest.raises(ValueError, match=r'puts backbone\.\S+ at depth 4 of 4 layers'):
        build(model, decay_rate=DECAY)


def test_shared_parameter_needs_a_decision() -> None:
    model = ToyModel()
    model.head.weight = model.backbone.blocks[1].weight
    with pytest.raises(ValueError, match=r'backbone\.blocks\.1\.weight: shared'):
        build(model, decay_rate=DECAY)
    found = settings(model, build(model, decay_rate=DECAY, bypass_duplicate=True))
    assert found['backbone.blocks.1.weight'][0] == 0.5


def test_every_parameter_moves() -> None:
    model = ToyModel()
    wrapper = build(model, decay_rate=DECAY)
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    loss = sum(((param - 3) ** 2).sum() for param in model.parameters())
    wrapper.update_params(loss)
    assert all(not torch.equal(param, before[name]) for name, param in model.named_parameters())
