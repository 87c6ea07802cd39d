"""tools/benchmark_model.py: forms agree, the reports are whole, nobody is waited for."""

from __future__ import annotations

import copy
import importlib.util

import pytest
import torch
from study_helpers import ROOT, call_tool
from timing_helpers import (
    assert_bad_arguments_are_named,
    assert_nobody_of_a_name,
    assert_whole_report,
    result_in,
)
from tiny_networks import TINY, tiny_networks
from torch import nn

from mmsw.benchmarks.measure import machine
from mmsw.benchmarks.model import benchmark as model_benchmark
from mmsw.benchmarks.model import networks as contestants
from mmsw.benchmarks.model.contender import contenders_of
from mmsw.benchmarks.model.convnext import ConvNeXt
from mmsw.benchmarks.model.foresight import Foresight
from mmsw.benchmarks.model.kinds import (
    KINDS,
)
from mmsw.benchmarks.model.networks import EVAL, TRAINING, Form, Network, enliven
from mmsw.benchmarks.model.report import markdown
from mmsw.models.backbones import ShiftWiseNet

TOOL = ROOT / 'tools/benchmark_model.py'
CPU, CUDA = torch.device('cpu'), torch.device('cuda')


def test_a_run_writes_whole_reports(tiny, tmp_path, capsys):
    out = tmp_path / 'new' / 'folder'
    before = torch.get_num_threads()
    sizes = ['--crop', '64', '--batch', '2', '--threads', '1', '--only', 'v1', 'Conv', 'Other']
    assert call_tool(TOOL, '--out', str(out), *sizes) == 0
    assert torch.get_num_threads() == before
    progress = capsys.readouterr().err
    assert '[1/2] eval, crop 64, batch 2, float32, 1 thread' in progress
    assert 'x floor  n=' in progress

    result = result_in(out)
    assert_whole_report(out, 'benchmark_model', markdown(result))
    assert result['left_out'] == ['Other: nothing is not installed']
    assert result['errors'] == []
    rows = {(row['name'], row['mode']): row for row in result['rows']}
    assert list(rows) == [
        ('SW-T v1', EVAL),
        ('SW-T v1, folded', EVAL),
        ('ConvNeXt-T', EVAL),
        ('SW-T v1', TRAINING),
        ('SW-T v1, not fused', TRAINING),
        ('SW-T v1, hidden maps recomputed', TRAINING),
        ('SW-T v1, blocks recomputed', TRAINING),
        ('ConvNeXt-T', TRAINING),
    ]
    for row in result['rows']:
        assert row['samples'] == 2
        assert 0 < row['min_ms'] <= row['median_ms'] <= row['max_ms']
        assert row['images_per_s'] == pytest.approx(2e3 / row['median_ms'])
        assert row['ratio'] == pytest.approx(row['median_ms'] / row['floor_ms'])
        assert row['floor_ms'] == pytest.approx(row['multiply_adds'] / row['matmul_per_s'] * 1e3)
        assert row['peak_bytes'] > 0
        assert set(row['shares']) == set(KINDS)
        assert sum(row['shares'].values()) == pytest.approx(1)
    plain, folded = rows['SW-T v1', EVAL], rows['SW-T v1, folded', EVAL]
    assert plain['deviation'] is None
    assert 0 < folded['deviation'] < 1e-4
    assert folded['weight_bytes'] < plain['weight_bytes']
    assert folded['multiply_adds'] == plain['multiply_adds']
    assert rows['SW-T v1', TRAINING]['multiply_adds'] == 3 * plain['multiply_adds']
    assert folded['over_training_form'] == folded['median_ms'] / plain['median_ms']
    base = rows['ConvNeXt-T', EVAL]
    assert folded['over_convnext'] == folded['median_ms'] / base['median_ms']
    assert (base['over_convnext'], base['over_training_form']) == (None, None)
    trained, not_fused = rows['SW-T v1', TRAINING], rows['SW-T v1, not fused', TRAINING]
    assert trained['over_not_fused'] == trained['median_ms'] / not_fused['median_ms']
    assert trained['peak_over_not_fused'] == trained['peak_bytes'] / not_fused['peak_bytes']
    assert not_fused['over_not_fused'] is None
    assert folded['over_not_fused'] is None

    text = markdown(result)
    heads = [line for line in text.splitlines() if line.startswith('| network')]
    assert ['/ not fused | peak / not fused' in head for head in heads] == [False, True]
    assert not [head for head in heads if '/ float32' in head]
    assert '## training step: crop 64, batch 2, float32, 1 thread' in text
    assert '- ConvNeXt-T: plain torch' in text


def test_quick_takes_the_main_ones(bare, tmp_path):
    quick = model_benchmark.PRESETS['quick']
    assert (quick.crops, quick.batches, quick.modes) == ((512,), (1,), (EVAL, TRAINING))
    default = model_benchmark.PRESETS['default']
    assert (default.crops, default.batches) == ((224, 512), (1, 8))
    assert call_tool(TOOL, '--quick', '--crop', '64', '--out', str(tmp_path)) == 0
    names = [(row['name'], row['mode']) for row in result_in(tmp_path)['rows']]
    assert names == [
        ('SW-T v1', EVAL),
        ('SW-T v1, folded', EVAL),
        ('ConvNeXt-T', EVAL),
        ('Simple', EVAL),
        ('SW-T v1', TRAINING),
        ('SW-T v1, not fused', TRAINING),
        ('SW-T v1, hidden maps recomputed', TRAINING),
        ('ConvNeXt-T', TRAINING),
    ]


def test_only_some_in_half_precision_with_channels_last(bare, tmp_path, capsys):
    chosen = ['--only', 'v1, FOLDED', '--dtype', 'float32', 'bfloat16', '--channels-last']
    sizes = ['--crop', '32', '--batch', '1', '--out', str(tmp_path)]
    assert call_tool(TOOL, *chosen, *sizes) == 0
    result = result_in(tmp_path)
    assert result['settings']['channels_last'] is True
    assert [(row['name'], row['dtype']) for row in result['rows']] == [
        ('SW-T v1, folded', 'float32'),
        ('SW-T v1, folded', 'bfloat16'),
    ]
    single, half = result['rows']
    assert half['weight_bytes'] == single['weight_bytes'] / 2
    assert (single['over_float32'], half['deviation']) == (None, single['deviation'])
    assert half['over_float32'] == half['median_ms'] / single['median_ms']
    assert '| / float32 |' in (tmp_path / 'benchmark.md').read_text(encoding='utf-8')
    assert_nobody_of_a_name(TOOL, "SW-T v1', 'SW-T v1, folded'", tmp_path, capsys)


def test_who_is_too_slow_or_too_large_is_left_out_and_named(bare, tmp_path, monkeypatch):
    sizes = dict(crops=[256], batches=[1], modes=[EVAL], only=['ConvNeXt'])
    result = model_benchmark.benchmark_model(tmp_path, limit=1e-6, **sizes)
    (line,) = result['left_out']
    assert line.startswith('ConvNeXt-T, eval, crop 256, batch 1, float32, ')
    assert line.endswith('more than the limit of 1e-06 s')
    assert result['rows'] == []
    monkeypatch.setattr(model_benchmark, 'free_memory', lambda device: 2**10)
    result = model_benchmark.benchmark_model(tmp_path, **sizes)
    assert result['left_out'][0].endswith('GiB are free')
    assert '## Left out' in (tmp_path / 'benchmark.md').read_text(encoding='utf-8')


def test_a_form_with_other_maps_is_an_error_and_no_row(bare, tmp_path, monkeypatch, capsys):
    def spoilt(network: nn.Module) -> nn.Module:
        made = contestants.folded(network)
        with torch.no_grad():
            made.norm3.weight.mul_(1.1)
        return made

    network = Network('SW-T v2', lambda: ShiftWiseNet(**TINY), (Form(', folded', spoilt, (EVAL,)),))
    monkeypatch.setattr(model_benchmark, 'networks', lambda: [network, tiny_networks()[2]])
    arguments = ['--crop', '32', '--batch', '1', '--mode', 'eval', '--out', str(tmp_path)]
    assert call_tool(TOOL, *arguments) == 1
    assert (
        'error: SW-T v2, folded: ArithmeticError: its maps or gradients dev'
        in capsys.readouterr().err
    )
    result = result_in(tmp_path)
    assert [row['name'] for row in result['rows']] == ['ConvNeXt-T']
    assert len(result['errors']) == 1


def test_both_generations_agree_in_every_form(uncounted):
    for network in tiny_networks()[:2]:
        found = {one.form.name: one for one in contenders_of(network, network.forms, [64])}
        assert found[''].deviation is None
        assert 0 < found[', folded'].deviation < 1e-4
        for name, attribute, value in (
            (', not fused', 'fused', False),
            (', hidden maps recomputed', 'recompute', True),
            (', blocks recomputed', 'with_cp', True),
        ):
            assert found[name].deviation < 1e-4
            blocks = [block for stage in found[name].module.stages for block in stage]
            assert {getattr(block, attribute) for block in blocks} == {value}
            own = found[''].module.stages[0][0]
            assert getattr(own, attribute, not value) is not value


def test_a_form_with_other_gradients_is_an_error(uncounted):
    def spoilt(network: nn.Module) -> nn.Module:
        made = copy.deepcopy(network)
        made.norm3.weight.register_hook(lambda grad: 2 * grad)
        return made

    base = tiny_networks()[0]
    found = contenders_of(base, [Form(', spoilt', spoilt, (TRAINING,))], [64])
    assert 'SW-T v1, spoilt: ArithmeticError: its maps or gradients deviate' in str(next(found))


@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_a_wrong_block_would_be_noticed(version):
    """Fresh blocks hardly add to their map; those that are compared do."""
    network = enliven(ShiftWiseNet(version=version, **TINY), seed=0)
    network.eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = network(images)[-1]
        network.stages[3][0].shift_wise.paths[0].weight.mul_(1.5)
        after = network(images)[-1]
    assert (after - before).abs().max() > 0.01 * before.abs().max()


def test_rounding_errors_stay_small_in_a_deep_network_on_images_of_another_size():
    arch = dict(depths=[1, 1, 18, 1], dims=[8, 8, 64, 8])
    network = enliven(ShiftWiseNet(arch, big_kernels=(51, 49, 47, 13)), seed=0).switch_to_deploy()
    images = torch.randn(1, 3, 224, 224)
    other = images * (1 + 1e-6 * torch.randn_like(images))
    with torch.no_grad():
        pairs = zip(network(other), network(images), strict=True)
        assert max(float((one - two).abs().max() / two.abs().max()) for one, two in pairs) < 1e-4


@pytest.mark.parametrize(
    ('text', 'found'),
    [
        ('model name\t: A\nflags\t\t: fpu avx2 avx512_bf16 amx_bf16\n', 'AVX512_BF16, AMX'),
        ('flags\t\t: fpu avx2\n', 'none'),
        ('Features\t: fp asimd bf16\n', 'BF16'),
        ('processor\t: 0\n', 'unknown'),
    ],
)
def test_bfloat16_instructions_are_named(tmp_path, monkeypatch, text, found):
    (tmp_path / 'cpuinfo').write_text(text)
    monkeypatch.setattr('mmsw.benchmarks.measure._CPUINFO', tmp_path / 'cpuinfo')
    assert machine(CPU)['bfloat16_instructions'] == found


def test_foresight_probes_larger_images_only_while_they_are_cheap():
    probed = []

    def probe(crop: int) -> tuple[float, int]:
        probed.append(crop)
        return 0.1 + crop**2 / 1e6, crop**2

    assert Foresight(probe, limit=100.0)(512, 1)[0] == pytest.approx(64 * 0.104096)
    assert probed == [64]
    probed.clear()
    foresight = Foresight(probe, limit=3.0)
    time_needed, memory_needed = foresight(512, 1)
    assert probed == [64, 128]
    assert time_needed == pytest.approx(16 * 0.116384)
    assert memory_needed == 512**2
    foresight.learn(512, 1, 0.4, 10**6)
    assert foresight(512, 8) == (pytest.approx(3.2), 8 * 10**6)
    probed.clear()
    slow = Foresight(lambda crop: (probed.append(crop), (crop**2 / 1e3, 0))[1], limit=5.0)
    assert slow(512, 8)[0] > 1000
    assert probed == [64]


def test_plain_convnext_is_the_published_one():
    (contender,) = contenders_of(
        Network('ConvNeXt-T', ConvNeXt), (contestants.TRAINING_FORM,), [224]
    )
    # 28.6 M with its classifier (768 x 1000) and final norm; here three norms more
    assert contender.numbers == 28_589_128 - 769_000 + 2 * (96 + 192 + 384)
    assert contender.multiply_adds(224, EVAL) == pytest.approx(4.47e9, rel=0.01)
    assert contender.multiply_adds(224, TRAINING) == 3 * contender.multiply_adds(224, EVAL)


def test_packages_that_are_absent_are_named(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name: None if name.startswith('mm') else real(name)
    )
    found = {network.name: network for network in contestants.networks()}
    assert found['ConvNeXt-T'].source == 'plain torch'
    with pytest.raises(ImportError, match='mmseg is not installed; mmdet is not installed'):
        found['ResNet-50'].build()
    with pytest.raises(ImportError, match='mmpretrain is not installed'):
        found['RepLKNet-31B'].build()


def test_backbones_of_the_toolboxes_give_four_maps(monkeypatch):
    pytest.importorskip('mmseg', reason='mmseg: not installed')
    images = torch.randn(1, 3, 64, 64)
    found = {network.name: network for network in contestants.networks()}
    for name in ('ResNet-50', 'Swin-T', 'MiT-B2', 'MSCAN-T'):
        network = found[name].build()
        network.eval()
        with torch.no_grad():
            maps = network(images)
        assert [map_.shape[-1] for map_ in maps] == [16, 8, 4, 2]


def test_bad_arguments_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cases = {
        '--mode test': "modes must be of ('eval', 'training step'), got 'test'",
        '--dtype int8': "dtypes must be of ('float32', 'bfloat16', 'float16'), got 'int8'",
        '--limit -1': 'limit must be a positive number of seconds, got -1.0',
        '--tf32': 'tf32 has no effect on cpu; leave it out',
    }
    assert_bad_arguments_are_named(TOOL, cases, tmp_path, capsys)
    with pytest.raises(ValueError, match='preset must be one of'):
        model_benchmark.benchmark_model(tmp_path, preset='fast')


def test_gpu_settings_are_set_said_and_put_back():
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    with model_benchmark._gpu_settings(CUDA, tf32=True) as said:
        assert (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32) == (True, True, True)
    assert set(said.values()) == {True}
    assert (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32) == before
    with model_benchmark._gpu_settings(CPU, tf32=False) as said:
        assert said == {}
