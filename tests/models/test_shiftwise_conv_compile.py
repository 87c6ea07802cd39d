"""torch.compile and torch.export of a layer."""

import copy

import pytest
import torch
from model_helpers import randomise_batch_norms, relative_error

from mmsw.models import ShiftWiseConv2d


@pytest.fixture
def layer() -> ShiftWiseConv2d:
    layer = ShiftWiseConv2d(8, 8, 9)
    randomise_batch_norms(layer)
    return layer


def prune(layer: ShiftWiseConv2d, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for path in layer.paths:
        path.set_mask(torch.rand(len(path.mask), 1, 1, 1, generator=generator) < 0.4)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch.compiler.reset()


@pytest.mark.parametrize('deployed', [False, True])
def test_compile_in_evaluation(layer, deployed) -> None:
    layer.eval()
    if deployed:
        layer.switch_to_deploy()
    x = torch.randn(2, 8, 6, 7)
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    with torch.no_grad():
        assert relative_error(compiled(x), layer(x)) < 1e-6


def test_compile_in_training(layer) -> None:
    """Dense, then pruned, then pruned in another way, in one program."""
    plain = copy.deepcopy(layer)
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    for step in range(3):
        for one in (layer, plain) if step else ():
            prune(one, step)
        x = torch.randn(2, 8, 6, 7, requires_grad=True)
        x_plain = x.detach().clone().requires_grad_()
        out, expected = compiled(x), plain(x_plain)
        assert relative_error(out, expected) < 1e-5
        grad = torch.randn_like(out)
        for one, result in ((layer, out), (plain, expected)):
            one.zero_grad()
            result.backward(grad)
        assert relative_error(x.grad, x_plain.grad) < 1e-5
        for (name, found), target in zip(layer.named_parameters(), plain.parameters(), strict=True):
            assert relative_error(found.grad, target.grad) < 1e-5, name
        for path in layer.paths:
            assert not path.weight.grad[~path.mask].any()
    assert relative_error(layer.norm_h.running_var, plain.norm_h.running_var) < 1e-5


@pytest.mark.parametrize('deployed', [False, True])
def test_export_for_any_batch_and_size(layer, deployed) -> None:
    layer.eval()
    if deployed:
        layer.switch_to_deploy()
    axes = {
        0: torch.export.Dim('batch'),
        2: torch.export.Dim('height'),
        3: torch.export.Dim('width'),
    }
    program = torch.export.export(layer, (torch.randn(2, 8, 6, 7),), dynamic_shapes={'x': axes})
    for shape in [(2, 8, 6, 7), (3, 8, 11, 5)]:
        x = torch.randn(shape)
        with torch.no_grad():
            assert relative_error(program.module()(x), layer(x)) < 1e-6
