"""What every cell of the regime matrix starts from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmsw.benchmarks.regimes.regimes import REGIMES, Cell
from mmsw.benchmarks.regimes.training import Outcome, Start, run_cell


@pytest.fixture(scope='session')
def starts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Start]:
    """Gives the start of a network; each is made once."""
    pytest.importorskip('mmseg', reason='mmseg: absent; it has the backbones')
    made: dict[str, Start] = {}

    def start(network: str) -> Start:
        if network not in made:
            made[network] = Start(network, tmp_path_factory.mktemp('start'))
        return made[network]

    return start


@pytest.fixture
def train(starts: Callable[[str], Start], tmp_path: Path) -> Callable[[Cell], Outcome]:
    """Trains a cell in this process."""

    def run(cell: Cell) -> Outcome:
        assert REGIMES[cell.regime].processes == 1
        return run_cell(cell, starts(cell.network), tmp_path / 'run')

    return run
