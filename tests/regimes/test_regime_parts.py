"""Parts of the regime matrix: zeros that are made and counted, an optimizer, names, problems."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmsw.benchmarks.regimes.lion import SignMomentum
from mmsw.benchmarks.regimes.networks import NETWORKS
from mmsw.benchmarks.regimes.regimes import CELLS, OPTIMIZERS, REGIMES, Cell
from mmsw.benchmarks.regimes.report import problem_of, table_of
from mmsw.benchmarks.regimes.zeros import (
    kept_weights,
    least_moved,
    liven,
    make_zeros,
    num_lost,
    num_whole,
)


@pytest.fixture
def net() -> nn.Sequential:
    layers = [nn.Conv2d(4, 8, 3), *(nn.Conv2d(8, 8, 3) for _ in range(4)), nn.Conv2d(8, 8, (1, 2))]
    return nn.Sequential(*layers[:5], nn.Conv2d(8, 6, 3, groups=2), nn.Linear(9, 5))


def test_zeros_that_are_made(net: nn.Sequential) -> None:
    before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    patterns = make_zeros(net)
    assert patterns == {
        '1': 'filter', '2': '2:4', '3': 'weight', '4': 'dense', '5': 'filter', '6': 'weight',
    }  # fmt: skip
    state = net.state_dict()
    kept = kept_weights(state, patterns)
    assert list(kept) == ['1', '2', '3', '5', '6']
    for name, weight in net.named_parameters():
        mask = kept.get(name.removesuffix('.weight'), torch.ones_like(weight, dtype=torch.bool))
        assert torch.equal(weight, before[name] * mask)
    whole = [bool(rows.all()) for rows in kept['1']]
    assert whole == [bool(rows.any()) for rows in kept['1']]
    assert sum(whole) == 4
    fours = kept['2'].flatten(1).view(8, -1, 4)
    assert bool((fours.sum(2) == 2).all())
    values = before['2.weight'].flatten(1).view(8, -1, 4).abs()
    least = values.masked_fill(~fours, 9.0).amin(2)
    assert bool((values.masked_fill(fours, 0.0).amax(2) <= least).all())
    assert int(kept['3'].sum()) == 288
    assert int(kept['5'].flatten(1).all(1).sum()) == 3
    assert int(kept['6'].sum()) == 22  # of 45


def test_biases_that_answer(net: nn.Sequential) -> None:
    weights = [layer.weight.detach().clone() for layer in net]
    liven(net)
    assert all(0.05 <= layer.bias.min() <= layer.bias.max() <= 0.2 for layer in net)
    assert all(torch.equal(layer.weight, was) for layer, was in zip(net, weights, strict=True))


def test_what_is_counted(net: nn.Sequential) -> None:
    kept = kept_weights(net.state_dict(), make_zeros(net))
    start = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert (num_lost(start, kept), num_whole(start, kept)) == (0, 5)
    assert least_moved(start, start, kept) == 0.0
    with torch.no_grad():
        for name, mask in kept.items():
            net.get_submodule(name).weight[mask] += 1.0
    now = {f'module.{name}': tensor for name, tensor in net.state_dict().items()}
    assert num_lost(now, kept) == 0
    assert least_moved(net.state_dict(), start, kept) == 1.0
    with torch.no_grad():
        net.get_submodule('2').weight[~kept['2']] += 1e-30
        net.get_submodule('6').weight[~kept['6']] = float('nan')
        net.get_submodule('3').weight.copy_(start['3.weight'])
    assert (num_lost(net.state_dict(), kept), num_whole(net.state_dict(), kept)) == (288 + 23, 3)
    assert least_moved(net.state_dict(), start, kept) == 0.0


def test_an_optimizer_that_goes_by_signs() -> None:
    start, gradients = [3.0, -2.0, 0.0], [[0.5, -1e-6, 0.0], [-0.01, 4.0, 0.0], [-6.0, 0.0, 0.0]]
    weight = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer = SignMomentum([weight], lr=0.1, betas=(0.9, 0.99), weight_decay=0.2)
    expected, momentum = list(start), [0.0] * 3
    for gradient in gradients:
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        for i, g in enumerate(gradient):
            mixed = 0.9 * momentum[i] + 0.1 * g
            sign = (mixed > 0) - (mixed < 0)
            expected[i] -= 0.1 * (sign + 0.2 * expected[i])
            momentum[i] = 0.99 * momentum[i] + 0.01 * g
        assert weight.tolist() == pytest.approx(expected, abs=1e-12)
    assert weight[2] == 0.0


def test_cells() -> None:
    assert len(CELLS) == len(set(CELLS)) == len(NETWORKS) * len(OPTIMIZERS) * len(REGIMES)
    for cell in CELLS:
        assert Cell.named(str(cell)) == cell
        assert Cell.named(str(cell.control)) == cell._replace(guarded=False)
    assert str(Cell('swin', 'SGD', 'ddp').control) == 'swin/SGD/ddp/control'


def row(regime: str = 'ema', control: dict | None = None, **changed: object) -> dict:
    good = dict(zeros=9, live=0, averaged=0, saved=0, files=2, whole=3, moved=1.0, refused=None)
    bad = dict(good, live=7, averaged=5, saved=6, whole=0)
    return dict(
        network='resnet',
        optimizer='SGD',
        regime=regime,
        outcome={**good, **changed},
        control={**bad, **(control or {})},
    )


@pytest.mark.parametrize(
    ('found', 'problem'),
    [
        (row(), None),
        (row(live=2), '2 of 9 zeros are lost'),
        (row(averaged=3), '3 of 9 zeros are lost'),
        (row(saved=4), '4 of 9 zeros are lost'),
        (row(moved=0.0), 'a layer was not trained'),
        (row(files=0), 'no file was written'),
        (row(control=dict(live=0)), 'the control has lost nothing'),
        (row(control=dict(saved=0)), 'the control has lost nothing'),
        (row(control=dict(whole=2)), '2 layers keep their zeros without the hook'),
        (row() | dict(control=None), 'the control has lost nothing'),
        (row(refused='cannot'), 'cannot'),
        (row('fsdp', refused='cannot'), None),
        (row('fsdp') | dict(control=None), 'the control has lost nothing'),
    ],
)
def test_problems(found: dict, problem: str | None) -> None:
    told = problem_of(found)
    assert told is None if problem is None else told.startswith(problem)


def test_a_table() -> None:
    other = dict(row(moved=0.5, averaged=None), optimizer='AdamW')
    refused = row('fsdp', refused='cannot') | dict(control=None)
    assert table_of([row(), other, refused]) == [
        '| regime | SGD, momentum | control | AdamW | control | moved |',
        '| --- | ---: | ---: | ---: | ---: | ---: |',
        '| EMA | 0 | 7 | 0 | 7 | 50% |',
        '| FSDP, 2 processes | refused | – | – | – | – |',
    ]
