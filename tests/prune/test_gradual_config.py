"""``tools/prune.py --schedule cubic``: a config that prunes while it trains, and trains at once."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip('mmseg', reason='mmseg: not installed')
from run_tool import tool
from small_ade import write_ade
from small_training import SHIFT_WISE, write_checkpoint, write_config

from mmsw.apis import UsageError, load_config
from mmsw.apis.prune.gradual_config import write_gradual_config
from mmsw.checkpoint import load_checkpoint_file
from mmsw.errors import CheckpointError, SparsityError
from mmsw.sparsity import PruningSettings, lost_zeros

pytestmark = pytest.mark.usefixtures('plain_config_text')
HOOKS = """
custom_hooks = [
    dict(type='KeepSparsityHook'),
    dict(type='SparsityReportHook', require_sparse=True),
    dict(type='EMAHook', momentum=0.1),
]
custom_imports = dict(imports=['mmsw.models', 'json'], allow_failed_imports=False)
"""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Path:
    return write_config(tmp_path_factory.mktemp('gradual') / 'resnet.py', more=HOOKS)


@pytest.fixture(scope='module')
def checkpoint(config: Path) -> Path:
    return write_checkpoint(config, config.parent / 'trained.pth')


def test_it_trains_and_ends_sparse(config, checkpoint, tmp_path, capsys) -> None:
    out = tmp_path / 'configs' / 'gradual.py'
    words = [config, checkpoint, '--granularity', 'filter', '--sparsity', 0.5, '--scope', 'layer']
    assert tool('prune', *words, '--schedule', 'cubic', '--out', out) == 0
    assert f'wrote {out}' in capsys.readouterr().out
    cfg = load_config(out)
    assert cfg.load_from == str(checkpoint)
    assert cfg.custom_imports.imports == ['mmsw.models', 'json']
    assert [hook.type for hook in cfg.custom_hooks] == [
        'SparsityReportHook', 'EMAHook', 'GradualPruningHook'
    ]  # fmt: skip
    assert dict(cfg.custom_hooks[-1]) == dict(
        type='GradualPruningHook', sparsity=0.5, granularity='filter', scope='layer'
    )
    work_dir, data = tmp_path / 'run', write_ade(tmp_path / 'ade')
    words = [out, '--work-dir', work_dir, '--data-root', data]
    assert tool('train', *words, '--cfg-options', 'max_iters=4', 'val_interval=4') == 0
    saved = load_checkpoint_file(work_dir / 'iter_4.pth')
    for name in ('state_dict', 'ema_state_dict'):
        state = {key.removeprefix('module.'): value for key, value in saved[name].items()}
        found = {key.removesuffix('.mask'): v for key, v in state.items() if key[-5:] == '.mask'}
        assert found
        assert all('layer' in name for name in found)
        for mask in found.values():
            kept = int(mask.flatten(1).any(1).sum())
            assert kept == len(mask) - round(0.5 * len(mask))
        assert lost_zeros(state, found) == {}


def test_defaults_and_the_rest_are_told(checkpoint, tmp_path) -> None:
    config = write_config(tmp_path / 'plain.py', frozen_stages=1, more='custom_hooks = []')
    settings = PruningSettings(granularity='2:4')
    made = write_gradual_config(config, checkpoint, tmp_path / 'out.py', settings)
    cfg = load_config(tmp_path / 'out.py')
    assert dict(cfg.custom_hooks[0]) == dict(
        type='GradualPruningHook', sparsity=0.5, granularity='2:4'
    )
    assert cfg.custom_hooks[1].type == 'SparsityReportHook'
    assert 'left out (frozen): backbone.stem.3' in str(made)
    assert made.left_out['decode_head.conv_seg'].startswith('one of the last layers')


@pytest.mark.parametrize(
    ('out', 'scope', 'message'),
    [
        ('out.pth', None, r'a schedule makes a config, whose name ends with \.py'),
        ('there.py', None, r'there\.py is there already'),
        ('out.py', 'necks', r"scope 'necks' matches no layer"),
    ],
)
def test_bad_input(config, checkpoint, tmp_path, out, scope, message) -> None:
    (tmp_path / 'there.py').write_text('mine', encoding='utf-8')
    settings = PruningSettings(0.5, scope=scope)
    with pytest.raises((UsageError, SparsityError), match=message):
        write_gradual_config(config, checkpoint, tmp_path / out, settings)
    assert [path.name for path in tmp_path.iterdir()] == ['there.py']
    assert (tmp_path / 'there.py').read_text(encoding='utf-8') == 'mine'


def test_a_checkpoint_of_another_config_is_refused(checkpoint, tmp_path) -> None:
    with pytest.raises(CheckpointError, match='does not fit'):
        write_gradual_config(SHIFT_WISE, checkpoint, tmp_path / 'out.py', PruningSettings(0.5))
    assert not list(tmp_path.iterdir())


def test_options_for_the_training_are_refused(config, checkpoint, tmp_path, capsys) -> None:
    words = [config, checkpoint, '--granularity', '2:4', '--schedule', 'cubic']
    with pytest.raises(SystemExit, match='2'):
        tool('prune', *words, '--out', tmp_path / 'o.py', '--data-root', 'x')
    assert 'do not go with --schedule' in capsys.readouterr().err
