"""Zeros survive regimes that need several processes, or that kill one."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsw.benchmarks.regimes.matrix import run_cells
from mmsw.benchmarks.regimes.networks import NETWORKS
from mmsw.benchmarks.regimes.regimes import OPTIMIZERS, Cell
from mmsw.benchmarks.regimes.training import Outcome
from mmsw.errors import UsageError

REFUSAL = 'KeepSparsityHook cannot work under FullyShardedDataParallel: '


@pytest.fixture(scope='module')
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[Cell, Outcome]:
    """Of all cells of these regimes and their controls; one process, or one pair, has them all."""
    pytest.importorskip('mmseg', reason='mmseg: absent; it has the backbones')
    pairs = [(network, optimizer) for network in NETWORKS for optimizer in OPTIMIZERS]
    cells = [Cell(*pair, regime) for pair in pairs for regime in ('killed', 'ddp')]
    refused = [Cell(*pair, 'fsdp') for pair in pairs]
    folder = tmp_path_factory.mktemp('cells')
    return run_cells([*cells, *(cell.control for cell in cells), *refused], folder / 'runs', folder)


@pytest.mark.slow
@pytest.mark.parametrize('network', NETWORKS)
@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_two_processes(network: str, optimizer: str, outcomes: dict[Cell, Outcome]) -> None:
    cell = Cell(network, optimizer, 'ddp')
    outcome, control = outcomes[cell], outcomes[cell.control]
    assert (outcome['live'], outcome['averaged'], outcome['saved']) == (0, None, 0)
    assert (outcome['files'], outcome['refused']) == (2, None)
    assert outcome['moved'] > 0.9
    assert control['whole'] == 0
    assert min(control['live'], control['saved']) > 0.8 * control['zeros']


@pytest.mark.slow
@pytest.mark.parametrize('network', NETWORKS)
@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_killed_and_resumed(network: str, optimizer: str, outcomes: dict[Cell, Outcome]) -> None:
    cell = Cell(network, optimizer, 'killed')
    outcome, control = outcomes[cell], outcomes[cell.control]
    assert (outcome['live'], outcome['averaged'], outcome['saved']) == (0, 0, 0)
    assert (outcome['files'], outcome['refused']) == (3, None)  # iterations 2, 4 and 6
    assert outcome['moved'] > 0.9
    assert control['whole'] == 0
    assert min(control['live'], control['averaged'], control['saved']) > 0.8 * control['zeros']


@pytest.mark.slow
@pytest.mark.parametrize('network', NETWORKS)
@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_sharded_weights_are_refused(
    network: str, optimizer: str, outcomes: dict[Cell, Outcome]
) -> None:
    outcome = outcomes[Cell(network, optimizer, 'fsdp')]
    assert outcome['refused'].startswith(REFUSAL)
    assert 'Use MMDistributedDataParallel' in outcome['refused']
    assert outcome['files'] == 0


@pytest.mark.slow
def test_a_process_that_fails_is_told_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'ended with exit code 1; .*processes_1\.log says why'):
        run_cells([Cell('no such network', 'SGD', 'plain')], tmp_path / 'runs', tmp_path)
