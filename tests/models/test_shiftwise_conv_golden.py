"""ShiftWiseConv2d against the numbers of the authors' module, forward and backward."""

from pathlib import Path

import numpy as np
import pytest
import torch
from model_helpers import relative_error
from torch import Tensor

from mmsw.models import ShiftWiseConv2d

CASES = [('v1', 'module_v1_51_5'), ('v2', 'module_v2_49_3')]
ROUNDING = 1e-5


def golden(path: Path) -> dict:
    values = {}
    for key, array in np.load(path).items():
        key = (
            key.replace('LoRAs', 'paths')
            .replace('bn_lora1', 'norm_h')
            .replace('bn_lora2', 'norm_v')
            .replace('bn_small', 'norm_i')
        )
        scalar_argument = array.ndim == 0 and '.' not in key
        values[key] = array.item() if scalar_argument else torch.from_numpy(np.asarray(array))
    return values


def part(values: dict, prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


@pytest.fixture(params=CASES, ids=[file for _, file in CASES])
def case(request, data_dir) -> tuple[ShiftWiseConv2d, dict]:
    version, file = request.param
    values = golden(data_dir / f'{file}.npz')
    layer = ShiftWiseConv2d(
        values['dim'],
        values['dim'],
        values['big_kernel'],
        values['small_kernel'],
        values['ghost_ratio'],
        values['num_paths'],
        values['num_reps'],
        version=version,
    )
    layer.load_state_dict(part(values, 'state.'))
    return layer, values


def test_channels(case) -> None:
    layer, values = case
    order = [*values['rep_index'].tolist(), *values['ghost_index'].tolist()]
    assert layer.channel_order.tolist() == order


def test_evaluation(case) -> None:
    layer, values = case
    assert relative_error(layer.eval()(values['x']), values['y_eval']) < ROUNDING


@pytest.mark.parametrize('masked', [True, False], ids=['masked', 'dense'])
def test_training(case, masked) -> None:
    layer, values = case
    if not masked:  # the golden gradient is that of dense weights, some of which are zero
        for path in layer.paths:
            path.mask.fill_(True)
    x = values['x'].requires_grad_()
    out = layer.train()(x)
    assert relative_error(out, values['y_train']) < ROUNDING
    out.backward(values['grad_y'])
    assert relative_error(x.grad, values['grad_x']) < ROUNDING
    expected = part(values, 'grad.')
    assert set(expected) == {name for name, _ in layer.named_parameters()}
    for name, parameter in layer.named_parameters():
        target = expected[name]
        if masked and name.startswith('paths.'):
            mask = layer.get_submodule(name.removesuffix('.weight')).mask
            assert 0 < (~mask).sum() < mask.numel()
            assert (parameter.grad[~mask] == 0).all()
            target = target * mask
        assert relative_error(parameter.grad, target) < ROUNDING, name


def test_training_moves_the_statistics(case) -> None:
    layer, values = case
    before = layer.norm_h.running_mean.clone()
    layer.train()(values['x'])
    assert not torch.equal(layer.norm_h.running_mean, before)
