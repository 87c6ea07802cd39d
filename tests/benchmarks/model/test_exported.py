"""Exported forms of networks: what they compute, and what is said of those that cannot be had."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch
from tiny_networks import TINY, tiny_networks
from torch import Tensor, nn

from mmsw.benchmarks.model import benchmark as model_benchmark
from mmsw.benchmarks.model import networks as contestants
from mmsw.benchmarks.model.contender import Contender, NotStartedError, contenders_of
from mmsw.benchmarks.model.exported import EXPORTED, Start
from mmsw.benchmarks.model.networks import EVAL, Form, Network, enliven
from mmsw.benchmarks.onnx_runtimes import RUNTIMES
from mmsw.models.backbones import ShiftWiseNet

CPU = torch.device('cpu')


def exported(*starts: tuple[str, Start, Sequence[str]]) -> Network:
    """A network that is exported in some ways."""
    forms = [
        Form(f', folded, {name}', contestants.folded, (EVAL,), False, start, packages)
        for name, start, packages in starts
    ]
    return Network('SW-T v1', tiny_networks()[0].build, forms)


def test_what_cannot_be_exported_is_left_out_and_named_once(bare, tmp_path):
    def refuse(network: nn.Module, images: Tensor) -> None:
        raise RuntimeError('no compiler is\nhere')

    def wrong(network: nn.Module, images: Tensor) -> Callable[[], list[Tensor]]:
        return lambda: [map_ + 1 for map_ in network(images)]

    def right(network: nn.Module, images: Tensor) -> Callable[[], list[Tensor]]:
        return lambda: list(network(images))

    forms = (
        ('a', refuse, ()),
        ('b', wrong, ()),
        ('c', right, ('no_such_package',)),
        ('d', right, ()),
    )
    result = model_benchmark.benchmark_model(
        tmp_path, crops=[32], batches=[1], threads=[1], contestants=[exported(*forms)] * 2
    )
    place = 'eval, crop 32, batch 1, float32, 1 thread'
    assert result['left_out'] == [
        'c: not installed; for its rows, pip install no_such_package',
        *[f'SW-T v1, folded, a, {place}: RuntimeError: no compiler is here'] * 2,
    ]
    problem = f'SW-T v1, folded, b, {place}: ArithmeticError: its maps'
    assert [error.startswith(problem) for error in result['errors']] == [True, True]
    assert [row['name'] for row in result['rows']] == ['SW-T v1, folded, d'] * 2
    assert 0 < result['rows'][0]['deviation'] < 1e-4


def exported_contender(*start: object) -> tuple[Contender, Tensor]:
    """One that is exported, of a network with one map, and images for it."""
    network = exported(start)
    build = partial(ShiftWiseNet, version='v2', out_indices=(0,), **TINY)
    network = replace(network, build=lambda: enliven(build(), seed=0))
    (contender,) = contenders_of(network, network.forms, [64])
    return contender, torch.randn(1, 3, 64, 64)


def test_the_program_of_a_folded_network(uncounted):
    contender, images = exported_contender('torch.export', *EXPORTED['torch.export'])
    before = contender.deviation
    (found,) = contender.started(images)()
    assert found.shape == (1, 8, 16, 16)
    assert before < contender.deviation < 2e-4


def test_torch_compile_gets_the_folded_network_and_one_size(monkeypatch):
    asked = []

    def compiled(network: nn.Module, **options: bool) -> nn.Module:
        asked.append(options)
        return network

    monkeypatch.setattr(torch, 'compile', compiled)
    network = tiny_networks()[0].build()
    run = EXPORTED['torch.compile'][0](network, torch.randn(1, 3, 32, 32))
    assert (len(run()), asked) == (4, [dict(dynamic=False)])


@pytest.mark.parametrize('name', RUNTIMES)
def test_other_runtimes_give_the_same_maps(uncounted, name):
    start, packages = EXPORTED[name]
    for package in packages:
        pytest.importorskip(package, reason=f'runtimes: {package} is not installed')
    contender, images = exported_contender(name, start, packages)
    call = contender.started(images)
    assert contender.deviation < 1e-4
    first = call()[0].clone()
    images.normal_()
    assert not torch.equal(call()[0], first)
    contender.put(CPU, torch.float64, torch.contiguous_format)
    with pytest.raises(NotStartedError, match=r'runs float32 on the CPU, got torch\.float64'):
        contender.started(images.double())
