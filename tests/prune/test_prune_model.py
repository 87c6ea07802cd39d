"""A user's way: prune a checkpoint, look at the report, train it; and all that can go wrong."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip('mmseg', reason='mmseg: not installed')
from run_tool import tool
from small_ade import write_ade
from small_training import DETECTOR, SHIFT_WISE, write_checkpoint, write_config

from mmsw.apis import UsageError, init_model, prune_model
from mmsw.checkpoint import load_checkpoint_file
from mmsw.errors import CheckpointError, SparsityError
from mmsw.sparsity import lost_zeros, masks

pytestmark = pytest.mark.usefixtures('plain_config_text')
SHAPE = (64, 64)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp('prune')


@pytest.fixture(scope='module')
def config(folder: Path) -> Path:
    return write_config(folder / 'resnet.py')


@pytest.fixture(scope='module')
def checkpoint(config: Path, folder: Path) -> Path:
    return write_checkpoint(config, folder / 'trained.pth', optimizer={}, message_hub={})


@pytest.fixture(scope='module')
def data(folder: Path) -> Path:
    return write_ade(folder / 'ade')


def prune(config, checkpoint, path, **settings):
    settings = dict(evaluate=False, shape=SHAPE, progress=lambda line: None) | settings
    return prune_model(config, checkpoint, path, **settings)


def pruned_layers(path: Path) -> dict[str, torch.Tensor]:
    state = load_checkpoint_file(path)['state_dict']
    found = {key.removesuffix('.mask'): mask for key, mask in state.items() if key[-5:] == '.mask'}
    assert lost_zeros(state, found) == {}
    return found


@pytest.mark.parametrize(
    ('granularity', 'share', 'more'),
    [
        ('filter', 0.4, {}),
        ('channel', 0.4, {}),
        ('block', 0.5, dict(block=(4, 2))),
        ('2:4', None, {}),
        ('1:4', None, dict(scope='backbone')),
        ('weight', 0.8, dict(per_layer=False)),
    ],
)
def test_the_file_holds_zeros_and_masks(
    config, checkpoint, tmp_path, granularity, share, more
) -> None:
    path = tmp_path / 'new' / 'pruned.pth'
    report = prune(config, checkpoint, path, granularity=granularity, sparsity=share, **more)
    before, after = (load_checkpoint_file(file) for file in (checkpoint, path))
    found = pruned_layers(path)
    assert set(found) == {layer.name for layer in report.layers}
    assert set(after) == {'meta', 'state_dict'}
    for key, value in before['meta'].items():
        assert after['meta'][key] == value
    assert after['meta']['pruning']['granularity'].startswith(granularity)
    for key, value in before['state_dict'].items():
        mask = found.get(key.removesuffix('.weight')) if key.endswith('.weight') else None
        expected = value if mask is None else value * mask
        assert torch.equal(after['state_dict'][key], expected), key
    units = sum(layer.units for layer in report.layers)
    kept = sum(layer.after for layer in report.layers)
    if share is None:
        least, size = map(int, granularity.split(':'))
        for mask in found.values():
            assert (mask.flatten(1).unflatten(1, (-1, size)).sum(2) == least).all()
    elif 'per_layer' in more:
        assert kept == units - round(share * units)
    else:
        assert all(la.after == la.units - round(share * la.units) for la in report.layers)
    assert report.density == kept / units
    for layer in report.layers:
        assert layer.weights_after == int(found[layer.name].sum())
    plain = init_model(config)
    missing = plain.load_state_dict(after['state_dict'], strict=False).missing_keys
    assert missing == [], 'other programs find every tensor'
    assert masks(init_model(config, path)).keys() == found.keys()


def test_masked_weights_have_the_pattern_that_torch_compresses(
    config, checkpoint, tmp_path
) -> None:
    """Through torch's own conversion to values and indices, which keeps 2 of 4, and back."""
    conversions = pytest.importorskip(
        'torch.sparse._semi_structured_conversions', reason='semi-structured: this torch has none'
    )
    from torch.sparse import SparseSemiStructuredTensorCUTLASS as Kernels

    path = tmp_path / 'pruned.pth'
    report = prune(config, checkpoint, path, granularity='2:4')
    limits = Kernels._DTYPE_SHAPE_CONSTRAINTS[torch.float16]
    state = load_checkpoint_file(path)['state_dict']
    weights = {la.name: state[f'{la.name}.weight'].flatten(1).half() for la in report.layers}
    assert report.sparse_kernels == tuple(
        name
        for name, dense in weights.items()
        if not dense.shape[0] % limits.sparse_min_rows
        and not dense.shape[1] % limits.sparse_min_cols
    )
    assert report.sparse_kernels
    for name in report.sparse_kernels:
        dense = weights[name]
        values, indices = conversions.sparse_semi_structured_from_dense_cutlass(dense)
        assert values.shape == (dense.shape[0], dense.shape[1] // 2)
        back = conversions.sparse_semi_structured_to_dense_cutlass(values, indices)
        assert torch.equal(back, dense)


def test_first_and_last_layers_stay_unless_asked_for(config, checkpoint, tmp_path) -> None:
    arguments = config, checkpoint, tmp_path / 'pruned.pth'
    report = prune(*arguments, granularity='filter', sparsity=0.5)
    assert set(report.left_out) == {
        'backbone.stem.0', 'decode_head.conv_seg', 'auxiliary_head.conv_seg'
    }  # fmt: skip
    assert 'left out (first layer, which sees the image): backbone.stem.0' in str(report)
    every = prune(*arguments, granularity='filter', sparsity=0.5, include_all=True, overwrite=True)
    assert {la.name for la in every.layers} >= set(report.left_out)
    only = prune(
        *arguments, granularity='filter', sparsity=0.5, scope=r'conv_seg\.weight', overwrite=True
    )
    assert [la.name for la in only.layers] == ['decode_head.conv_seg', 'auxiliary_head.conv_seg']


def test_the_report_counts_by_part_and_kind(config, checkpoint, tmp_path) -> None:
    path = tmp_path / 'pruned.pth'
    report = prune(config, checkpoint, path, granularity='weight', sparsity=0.5)
    assert {la.part for la in report.layers} == {
        'backbone.stem', 'backbone.layer1', 'backbone.layer2', 'backbone.layer3',
        'backbone.layer4', 'decode_head', 'auxiliary_head',
    }  # fmt: skip
    assert {la.kind for la in report.layers} == {'conv 1x1', 'conv 3x3'}
    dense, before, now = report.macs
    assert dense == before
    saved = sum(la.macs * (1 - la.weights_after / la.weights) for la in report.layers if la.macs)
    assert dense - now == pytest.approx(saved, abs=1)
    again = prune(config, path, tmp_path / 'more.pth', granularity='weight', sparsity=0.75)
    assert again.macs[:2] == (dense, now)
    row = next(line for line in str(report).splitlines() if line.startswith('in all'))
    total = sum(la.weights for la in report.layers)
    assert re.search(rf'{len(report.layers)}\s+{total:,}\s+100\.00%\s+50\.0\d%', row)


def test_scores_before_and_after(config, checkpoint, data, tmp_path) -> None:
    lines = []
    path = tmp_path / 'pruned.pth'
    report = prune(
        config, checkpoint, path, granularity='weight', sparsity=0.9, evaluate=True,
        data_root=data, progress=lines.append,
    )  # fmt: skip
    assert report.no_scores is None
    assert {'aAcc', 'mIoU', 'mAcc'} <= set(report.scores_before)
    assert report.scores_after != report.scores_before
    again = prune(
        config, path, tmp_path / 'again.pth', granularity='weight', sparsity=0.9, evaluate=True,
        data_root=data,
    )  # fmt: skip
    assert again.scores_before == again.scores_after == report.scores_after
    assert re.search(r'validation +before +after\n', str(report))
    assert lines.count('measuring on the validation data') == 2
    absent = prune(
        config, checkpoint, tmp_path / 'absent.pth', granularity='weight', sparsity=0.9,
        evaluate=True, data_root=tmp_path / 'absent',
    )  # fmt: skip
    assert absent.scores_before is None
    assert 'does not exist' in absent.no_scores


def test_snip_looks_at_training_images(config, checkpoint, data, tmp_path) -> None:
    """And leaves no trace: the weights that stay are those of the file."""
    paths = [tmp_path / f'{index}.pth' for index in range(4)]
    settings = dict(granularity='filter', sparsity=0.5, by='snip', data_root=data)
    state = torch.get_rng_state()
    for path, seed in zip(paths[:3], (0, 0, 1), strict=True):
        prune(config, checkpoint, path, seed=seed, **settings)
    assert torch.equal(torch.get_rng_state(), state)
    prune(config, checkpoint, paths[3], granularity='filter', sparsity=0.5)
    chosen = [pruned_layers(path) for path in paths]
    same = [
        all(torch.equal(mask, other[name]) for name, mask in chosen[0].items())
        for other in chosen[1:]
    ]
    assert same == [True, False, False]
    before, after = (load_checkpoint_file(f)['state_dict'] for f in (checkpoint, paths[0]))
    for name, mask in chosen[0].items():
        key = f'{name}.weight'
        assert torch.equal(after[key][mask], before[key][mask])
    with pytest.raises(UsageError, match='does not exist'):
        prune(config, checkpoint, tmp_path / 'no.pth', **{**settings, 'data_root': tmp_path / 'x'})
    assert not (tmp_path / 'no.pth').exists()


def test_a_sparse_checkpoint_is_pruned_further(config, checkpoint, tmp_path) -> None:
    """Also one with plain zeros of another program; what was pruned stays so."""
    path = tmp_path / 'first.pth'
    prune(config, checkpoint, path, granularity='weight', sparsity=0.5)
    first = pruned_layers(path)
    bare = load_checkpoint_file(path)
    bare['state_dict'] = {k: v for k, v in bare['state_dict'].items() if not k.endswith('.mask')}
    torch.save(bare, tmp_path / 'bare.pth')
    for start in (path, tmp_path / 'bare.pth'):
        out = tmp_path / f'{start.stem}_more.pth'
        report = prune(
            config, start, out, granularity='weight', sparsity=0.75, scope='backbone.layer'
        )
        second = pruned_layers(out)
        assert set(second) == set(first), 'what is out of scope keeps its mask'
        assert not any((second[name] & ~mask).any() for name, mask in first.items())
        assert all(la.after == la.units - round(0.75 * la.units) for la in report.layers)
        assert all(la.before == la.units - round(0.5 * la.units) for la in report.layers)
    with pytest.raises(SparsityError, match=r'already, which is sparser \(50\.\d+%\) than .*25'):
        prune(config, path, tmp_path / 'less.pth', granularity='weight', sparsity=0.25)
    assert not (tmp_path / 'less.pth').exists()


def test_frozen_layers_are_named(checkpoint, tmp_path) -> None:
    config = write_config(tmp_path / 'frozen.py', frozen_stages=1)
    report = prune(config, checkpoint, tmp_path / 'p.pth', granularity='weight', sparsity=0.5)
    assert report.frozen
    assert all(re.match(r'backbone\.(stem|layer1)', name) for name in report.frozen)
    assert 'frozen by the config' in str(report)


def test_detectors_and_shift_wise_networks(tmp_path) -> None:
    pytest.importorskip('mmdet', reason='mmdet: not installed')
    detector = write_checkpoint(DETECTOR, tmp_path / 'detector.pth')
    report = prune(DETECTOR, detector, tmp_path / 'p.pth', granularity='block 4x1', sparsity=0.5)
    assert {'bbox_head.retina_cls', 'bbox_head.retina_reg'} <= set(report.left_out)
    assert any(la.name.startswith('bbox_head.cls_convs') for la in report.layers)
    segmentor = write_checkpoint(SHIFT_WISE, tmp_path / 'segmentor.pth')
    report = prune(
        SHIFT_WISE, segmentor, tmp_path / 's.pth', granularity='filter', sparsity=0.5, scope='paths'
    )
    assert {la.kind for la in report.layers} == {'depthwise 3x3'}
    assert report.macs[2] < report.macs[0]
    row = next(line for line in str(report).splitlines() if 'depthwise' in line)
    assert re.search(r' -  +-$', row), 'the filters have no multiply-adds by themselves'


def test_it_trains_sparse_through_the_tools(config, checkpoint, data, tmp_path, capsys) -> None:
    path, work_dir = tmp_path / 'pruned.pth', tmp_path / 'run'
    words = [config, checkpoint, '--out', path, '--granularity', 'block', '--block', 2, 4]
    words += ['--sparsity', 0.6, '--shape', 64, 64, '--data-root', data]
    assert tool('prune', *words) == 0
    printed = capsys.readouterr().out
    assert f'wrote {path}' in printed
    assert re.search(r'mIoU +[\d.]+ +[\d.]+', printed)
    options = [f'load_from={path}', 'max_iters=2', 'val_interval=2']
    words = [config, '--work-dir', work_dir, '--data-root', data, '--cfg-options', *options]
    assert tool('train', *words) == 0
    before, after = pruned_layers(path), pruned_layers(work_dir / 'iter_2.pth')
    assert before.keys() == after.keys()
    start, end = (load_checkpoint_file(f)['state_dict'] for f in (path, work_dir / 'iter_2.pth'))
    for name, mask in before.items():
        assert torch.equal(after[name], mask)
        key = f'{name}.weight'
        assert not torch.equal(start[key], end[key]), 'what is kept was trained'


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(sparsity=1.0), r'sparsity must be in \[0, 1\), got 1.0'),
        (dict(sparsity=-0.5), r'sparsity must be in \[0, 1\), got -0.5'),
        (dict(sparsity=float('nan')), r'sparsity must be in \[0, 1\), got nan'),
        (dict(), "granularity 'weight' needs sparsity"),
        (dict(granularity='2:4', sparsity=0.7), "'2:4' has a sparsity of 0.5 by itself"),
        (dict(granularity='block', sparsity=0.5), r"'block' needs the sides .*--block R C"),
        (dict(granularity='block', block=(0, 4), sparsity=0.5), 'a side of block must be a pos'),
        (dict(granularity='filter', block=(2, 4), sparsity=0.5), r"--block .* got 'filter'"),
        (dict(granularity='rows', sparsity=0.5), "granularity must be one of .*, got 'rows'"),
        (dict(sparsity=0.5, by='hessian'), "by must be one of .*, got 'hessian'"),
        (dict(sparsity=0.5, scope='^neck'), "scope '.neck' matches no layer"),
        (dict(sparsity=0.5, scope='['), 'scope must be a regular expression'),
        (dict(granularity='block 7x1', sparsity=0.5), "'block 7x1' fits none of"),
        (dict(sparsity=0.5, snip_batches=0), 'snip_batches must be a positive integer'),
        (dict(sparsity=0.5, shape=(0, 64)), 'a side of shape must be a positive integer, got 0'),
    ],
)
def test_what_makes_no_sense_is_refused(config, checkpoint, tmp_path, settings, message) -> None:
    with pytest.raises((UsageError, SparsityError), match=message):
        prune(config, checkpoint, tmp_path / 'p.pth', **{'granularity': 'weight', **settings})
    assert not list(tmp_path.iterdir())


def test_files_that_cannot_be_used_are_named(config, checkpoint, tmp_path, capsys) -> None:
    there = tmp_path / 'there.pth'
    there.write_bytes(b'mine')
    settings = dict(granularity='weight', sparsity=0.5)
    with pytest.raises(UsageError, match=r'there\.pth is there already: .*--overwrite'):
        prune(config, checkpoint, there, **settings)
    assert there.read_bytes() == b'mine'
    with pytest.raises(UsageError, match='is a folder'):
        prune(config, checkpoint, tmp_path, **settings)
    with pytest.raises(UsageError, match=r'checkpoint .*absent\.pth does not exist'):
        prune(config, tmp_path / 'absent.pth', tmp_path / 'p.pth', **settings)
    other = write_checkpoint(SHIFT_WISE, tmp_path / 'other.pth')
    with pytest.raises(CheckpointError, match='does not fit the EncoderDecoder of the config'):
        prune(config, other, tmp_path / 'p.pth', **settings)
    words = [config, checkpoint, '--granularity', 'weight', '--sparsity', 1.5, '--no-eval']
    assert tool('prune', *words, '--out', tmp_path / 'p.pth') == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith('error: sparsity must be in [0, 1)')
    assert not (tmp_path / 'p.pth').exists()


def test_weights_of_a_quantised_model_are_refused(config, checkpoint, tmp_path) -> None:
    saved = load_checkpoint_file(checkpoint)
    name = next(key for key, value in saved['state_dict'].items() if value.ndim == 4)
    saved['state_dict'][name] = (saved['state_dict'][name] * 50).to(torch.int8)
    torch.save(saved, tmp_path / 'int8.pth')
    files = tmp_path / 'int8.pth', tmp_path / 'p.pth'
    with pytest.raises(CheckpointError, match=rf'1 of \d+ parameters in whole.*{name}: torch.int8'):
        prune(config, *files, granularity='weight', sparsity=0.5)
    assert not (tmp_path / 'p.pth').exists()


def test_a_folded_checkpoint_is_refused(tmp_path) -> None:
    model = init_model(SHIFT_WISE, deploy=True)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'folded.pth')
    with pytest.raises(CheckpointError, match=r'folded|switch_to_deploy'):
        prune(
            SHIFT_WISE, tmp_path / 'folded.pth', tmp_path / 'p.pth', granularity='weight',
            sparsity=0.5,
        )  # fmt: skip


def test_nothing_is_left_where_writing_fails(config, checkpoint, tmp_path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError('no space left')

    monkeypatch.setattr(torch, 'save', full)
    with pytest.raises(CheckpointError, match='cannot be written: no space left'):
        prune(config, checkpoint, tmp_path / 'p.pth', granularity='weight', sparsity=0.5)
    assert not list(tmp_path.iterdir())


def test_random_choices_follow_the_seed(config, checkpoint, tmp_path) -> None:
    chosen = []
    for index, seed in enumerate((0, 0, 1)):
        path = tmp_path / f'{index}.pth'
        prune(config, checkpoint, path, granularity='filter', sparsity=0.5, by='random', seed=seed)
        flat = [mask.flatten(1).any(1).numpy() for mask in pruned_layers(path).values()]
        chosen.append(np.concatenate(flat).tolist())
    assert chosen[0] == chosen[1] != chosen[2]
