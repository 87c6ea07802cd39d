"""Tiny networks, data and runs that the tests of the transfer benchmark share."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config
from study_helpers import make_scenes, write_config
from transfer_helpers import MINI, settings_for

from mmsw.apis import build_runner
from mmsw.benchmarks.transfer.networks import Network, read_networks
from mmsw.benchmarks.transfer.plan import COMPARED, TransferRun, plan_runs, run_config
from mmsw.benchmarks.transfer.starts import find_starts, make_starts, pretraining_lengths


@pytest.fixture(autouse=True)
def _plain_config_text(plain_config_text: None) -> None:
    """For every test here."""


@pytest.fixture(scope='session')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenes(tmp_path_factory, 12, 'mmseg')


@pytest.fixture(scope='session')
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config of the demonstration with a network of a test's size."""
    return write_config(tmp_path_factory, MINI)


@pytest.fixture(scope='session')
def network(mini: Path, data: Path) -> Network:
    return read_networks([('seg', mini)], {'seg': data}, {})[0]


@pytest.fixture(scope='session')
def pretrained(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a benchmark whose starts are made."""
    out = tmp_path_factory.mktemp('pretrained')
    settings = settings_for(out, ['dense', 'sparse'])
    make_starts([network], settings, find_starts([network], settings), lambda line: None)
    return out / 'starts'


@pytest.fixture(scope='session')
def trained(
    network: Network, pretrained: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, TransferRun]:
    """One finished run from every start, trained in this process."""
    out = tmp_path_factory.mktemp('trained')
    (out / 'starts').symlink_to(pretrained)
    settings = settings_for(out, COMPARED)
    lengths = pretraining_lengths([network], settings)
    planned = plan_runs([network], settings, find_starts([network], settings), lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Config, 'pretty_text', property(lambda cfg: repr(cfg.to_dict())))
        for run in planned:
            build_runner(run_config(run, settings)).train()
    return {run.start: run for run in planned}
