"""Zeros survive every regime that trains in one process, and without the hook they do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmsw.benchmarks.regimes.regimes import CELLS, REGIMES, Cell
from mmsw.benchmarks.regimes.training import Outcome, Start
from mmsw.checkpoint import load_checkpoint_file

HERE = [
    cell
    for cell in CELLS
    if REGIMES[cell.regime].processes == 1 and REGIMES[cell.regime].story != 'killed'
]
FILES = {'once': 2, 'again': 3}
pytestmark = pytest.mark.filterwarnings('ignore:torch.utils.checkpoint. the use_reentrant')


def averages(cell: Cell) -> bool:
    return any(hook['type'] == 'EMAHook' for hook in REGIMES[cell.regime].hooks)


@pytest.mark.parametrize('cell', HERE, ids=str)
def test_no_zero_is_lost(
    cell: Cell, train: Callable[[Cell], Outcome], starts: Callable[[str], Start]
) -> None:
    start = starts(cell.network)
    assert train(cell) == dict(
        zeros=start.zeros,
        live=0,
        averaged=0 if averages(cell) else None,
        saved=0,
        files=FILES[REGIMES[cell.regime].story],
        whole=len(start.kept),
        moved=pytest.approx(1.0, abs=0.1),
        refused=None,
    )


@pytest.mark.parametrize(
    'cell',
    [
        pytest.param(
            cell.control,
            id=str(cell.control),
            marks=[] if cell.optimizer == 'sign' else pytest.mark.slow,
        )
        for cell in HERE
    ],
)
def test_without_the_hook_zeros_are_lost(cell: Cell, train: Callable[[Cell], Outcome]) -> None:
    outcome = train(cell)
    assert outcome['refused'] is None
    assert outcome['whole'] == 0
    for what in ('live', 'saved', *(['averaged'] if averages(cell) else [])):
        assert outcome[what] > 0.8 * outcome['zeros'], what


def test_frozen_layers_are_trained_later(
    starts: Callable[[str], Start], train: Callable[[Cell], Outcome], tmp_path: Path
) -> None:
    train(Cell('resnet', 'AdamW', 'frozen'))
    start = starts('resnet')
    first, second = (
        load_checkpoint_file(tmp_path / f'run/iter_{iteration}.pth')['state_dict']
        for iteration in (2, 4)
    )
    frozen = list(start.kept)[:3]
    assert [start.patterns[name] for name in frozen] == ['filter', '2:4', 'weight']
    for name in start.kept:
        key = f'{name}.weight'
        assert torch.equal(first[key], start.state[key]) == (name in frozen)
        assert not torch.equal(second[key], first[key])


def test_layers_near_the_input_learn_slower(
    starts: Callable[[str], Start], train: Callable[[Cell], Outcome], tmp_path: Path
) -> None:
    train(Cell('resnet', 'sign', 'layer_decay'))
    optimizer = load_checkpoint_file(tmp_path / 'run/iter_2.pth')['optimizer']
    rates = sorted({group['lr'] for group in optimizer['param_groups']})
    assert rates == pytest.approx([0.01 / 2**depth for depth in (4, 3, 2, 1, 0)])


def test_mixed_precision_is_on(
    starts: Callable[[str], Start], train: Callable[[Cell], Outcome], tmp_path: Path
) -> None:
    """The wrapper saves the state of its loss scaler."""
    train(Cell('swin', 'SGD', 'amp'))
    optimizer = load_checkpoint_file(tmp_path / 'run/iter_4.pth')['optimizer']
    assert optimizer['loss_scaler']['scale'] == 1024.0
