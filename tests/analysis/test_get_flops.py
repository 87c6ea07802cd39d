"""Configs counted: what the release prints, detectors, and tools/get_flops.py as it is called."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmsw.analysis.complexity import Complexity, Cost, complexity, kernel_work
from mmsw.apis import UsageError, load_config
from mmsw.apis.complexity_report import complexity_table, count_complexity
from mmsw.models import ShiftWiseNet
from mmsw.ops.ghost_channels import ghost_channels
from mmsw.sparsity import magnitude_masks, set_masks

ROOT = Path(__file__).resolve().parents[2]
MINI = ROOT / 'tests' / 'data' / 'upernet_mini_ade20k.py'
DETECTOR = ROOT / 'tests' / 'data' / 'retinanet_mini_coco.py'
UPERNET = ROOT / 'configs' / 'upernet_sw_t_ade20k.py'
CASCADE = 'configs/cascade_mask_rcnn_sw_{}_coco.py'


def test_network_without_shift_wise_layers(tmp_path: Path) -> None:
    """The documentation of mmdet 2.x gives 37.74 M and 239.32 "GFLOPs" for its RetinaNet."""
    config = tmp_path / 'retinanet.py'
    config.write_text("_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py']\n")
    result = count_complexity(config, (1280, 800))
    assert round(result.total.trainable / 1e6, 2) == 37.74
    assert round(result.total.release_count / 1e9, 2) == 239.32
    assert result.macs_dense == result.macs_used == result.total.macs_naive == 238_536_058_880
    with pytest.raises(UsageError, match='no folded form'):
        count_complexity(config, (64, 64), deploy=True)


def test_published_figures_of_segmentation() -> None:
    """One path: 61.73 M and 948.12 "GFLOPs" at 512 x 2048; two paths: 62.51 M and 953.81."""
    two = count_complexity(UPERNET, (512, 2048))
    assert (two.parameters, two.total.trainable) == (62_514_776, 62_514_776)
    assert two.total.release_count == 953_811_612_648
    assert two.not_run == ('auxiliary_head',)
    assert two.macs_dense == two.macs_used == 953_415_801_728
    assert two.parts['auxiliary_head'] == Cost(776_342, 776_342, 776_342)
    one = count_complexity(UPERNET, cfg_options={'model.backbone.num_paths': 1})
    assert one.parameters == 61_727_186
    assert round(one.total.release_count / 1e9, 2) == 948.12
    assert one.macs_dense == two.macs_dense


@pytest.mark.slow
@pytest.mark.ci
def test_published_figure_of_the_small_network() -> None:
    """1039.21 "GFLOPs" with one path; the 87.5 M parameters beside it are not explained."""
    config, options = ROOT / 'configs' / 'upernet_sw_s_ade20k.py', {'model.backbone.num_paths': 1}
    result = count_complexity(config, cfg_options=options)
    assert round(result.total.release_count / 1e9, 2) == 1039.21
    assert (result.parameters, result.macs_dense) == (87_643_616, 1_047_106_192_896)


def as_printed_for_coco(result: Complexity, arch: str) -> tuple[float, float]:
    """Figures of a backbone with one path, no channel attention, and 3 x 3 kernels and a norm on
    the shifted channels instead: parameters in 10^6 and the release's count in 10^9, rounded.
    """
    settings = ShiftWiseNet.arch_settings['v2', arch]
    attention = [cost for name, cost in result.modules.items() if '.se.' in name]
    parameters = result.parameters - sum(cost.parameters for cost in attention)
    count = result.total.release_count - sum(cost.release_count for cost in attention)
    maps, bigs = ((320, 200), (160, 100), (80, 50), (40, 25)), (51, 49, 47, 13)
    for depth, dim, big, (h, w) in zip(
        settings['depths'], settings['dims'], bigs, maps, strict=True
    ):
        active = dim - len(ghost_channels(dim, 0.23, 'v2'))
        path = depth * active * -(-big // 3) * 9
        parameters += depth * active * (9 + 2) - path
        count += depth * active * 9 * h * w - path * (h + 2) * (w + 2)
    return round(parameters / 1e6, 2), round(count / 1e9, 2)


@pytest.mark.parametrize(
    ('arch', 'parameters', 'dense', 'count', 'printed'),
    [
        ('tiny', 89_198_046, 755_754_044_640, 756_395_367_180, (86.89, 751.21)),
        pytest.param(
            *('small', 114_654_342, 846_229_591_152, 847_008_242_828, (110.48, 839.27)),
            marks=[pytest.mark.slow, pytest.mark.ci],
        ),
    ],
)
def test_published_figures_of_detection(
    arch: str, parameters: int, dense: int, count: int, printed: tuple[float, float]
) -> None:
    result = count_complexity(ROOT / CASCADE.format(arch[0]), (1280, 800))
    assert (result.parameters, result.macs_dense) == (parameters, dense)
    assert result.total.release_count == count
    assert (result.proposals, result.not_run) == ((1000, 100), ())
    roi_parts = {'roi_head.bbox_head', 'roi_head.mask_head'}
    assert set(result.parts) == {'backbone', 'neck', 'rpn_head', *roi_parts}
    assert as_printed_for_coco(result, arch) == printed


def test_roi_heads_cost_in_proportion_to_boxes() -> None:
    dims = [8, 8, 8, 8]
    options = {
        'model.backbone': dict(arch=dict(_delete_=True, depths=[1, 1, 1, 1], dims=dims)),
        'model.neck.in_channels': dims,
    }
    cfg = load_config(ROOT / CASCADE.format('t'), options)
    few, more = (
        count_complexity(cfg, (64, 64), proposals=n, mask_proposals=n // 10) for n in (20, 50)
    )
    convs, fcs = 4 * 49 * 9 * 256 * 256, 12544 * 1024 + 1024 * (81 + 320)
    boxes = [result.parts['roi_head.bbox_head'].macs_dense for result in (few, more)]
    assert boxes == [n * 3 * (convs + fcs) for n in (20, 50)]
    mask = 4 * 196 * 9 * 256 * 256 + 196 * 4 * 256 * 256 + 784 * 256 * 80
    masks = [result.parts['roi_head.mask_head'].macs_dense for result in (few, more)]
    assert masks == [n * 3 * mask for n in (2, 5)]
    for part in ('backbone', 'neck', 'rpn_head'):
        assert few.parts[part] == more.parts[part]


@pytest.fixture
def tool() -> Callable[..., int]:
    main = runpy.run_path(str(ROOT / 'tools' / 'get_flops.py'))['main']
    return lambda *arguments: main([str(argument) for argument in arguments])


def test_tool_with_a_sparse_checkpoint(tool, tmp_path: Path, capsys) -> None:
    from mmengine.registry import MODELS, DefaultScope

    cfg = load_config(MINI)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model)
    set_masks(model, magnitude_masks(model, 0.5))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'sparse.pth')
    out = tmp_path / 'counts.json'
    options = ('--shape', 64, 96, '--checkpoint', tmp_path / 'sparse.pth', '--json', out)
    assert tool(MINI, *options) == 0
    printed = capsys.readouterr().out
    expected = complexity(model, (64, 96))
    expected = replace(expected, kernels=kernel_work(model, expected))
    assert printed.endswith(complexity_table(expected) + '\n')
    assert 'not called in a forward pass: auxiliary_head' in printed
    written = json.loads(out.read_text())
    assert written.pop('format') == 'mmsw.complexity/1'
    assert written == json.loads(json.dumps(expected.to_dict()))
    assert written['total']['parameters_used'] < written['total']['parameters']
    assert written['total']['macs_used'] < written['total']['macs_dense']
    assert [path.name for path in tmp_path.glob('counts*')] == ['counts.json']

    torch.save(dict(state_dict=model.backbone.state_dict()), tmp_path / 'backbone.pth')
    options = ('--shape', 64, 96, '--checkpoint', tmp_path / 'backbone.pth', '--per-module')
    assert tool(MINI, *options) == 0
    printed = capsys.readouterr().out
    assert [line.split() for line in printed.splitlines() if line.startswith('total')] == [
        line.split() for line in complexity_table(expected).splitlines() if line[:5] == 'total'
    ]
    assert 'backbone.stages.3.0.shift_wise.paths.1' in printed


def test_tool_with_a_folded_checkpoint(tool, tmp_path: Path, capsys) -> None:
    from mmengine.registry import MODELS, DefaultScope

    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(load_config(MINI).model)
    model.backbone.switch_to_deploy()
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'folded.pth')
    options = ('--shape', 64, 96, '--checkpoint', tmp_path / 'folded.pth')
    assert tool(MINI, *options, '--deploy') == 0
    expected = count_complexity(MINI, (64, 96), deploy=True)
    assert capsys.readouterr().out.endswith(complexity_table(expected) + '\n')
    assert tool(MINI, *options) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith('error: ')
    assert 'folded.pth was saved after switch_to_deploy' in line
    assert '--deploy' in line


def test_tool_pads_for_detectors(tool, tmp_path: Path, capsys) -> None:
    assert tool(DETECTOR, '--shape', 70, 96, '--deploy', '--json', tmp_path / 'a.json') == 0
    assert 'input 3 x 96 x 96' in capsys.readouterr().out
    assert json.loads((tmp_path / 'a.json').read_text())['proposals'] is None


def test_tool_takes_channels(tool, capsys) -> None:
    def printed(*arguments: object) -> str:
        assert tool(*arguments) == 0
        return capsys.readouterr().out

    four = ('--cfg-options', 'model.backbone.in_channels=4')
    assert 'input 3 x 96 x 96' in printed('--shape', 70, 96, DETECTOR)
    text = printed(DETECTOR, '--shape', 70, 96, *four)
    assert 'input 4 x 96 x 96' in text
    assert printed('--shape', 4, 70, 96, DETECTOR, *four) == text
    for channels in (1, 4):
        result = count_complexity(
            DETECTOR, (channels, 32, 32), cfg_options={'model.backbone.in_channels': channels}
        )
        stem = result.modules['backbone.downsample_layers.0.0']
        assert (stem.parameters, stem.macs_dense) == (channels * 36 + 4, channels * 36 * 256)
    assert tool(DETECTOR, '--shape', 1, 64, 64) == 2
    assert 'cannot be counted at 1 x 64 x 64: ' in capsys.readouterr().err


def test_errors_of_the_tool(tool, tmp_path: Path, capsys) -> None:
    (tmp_path / 'other.pth').write_bytes(b'')
    for arguments, message in (
        (['absent.py'], 'config file absent.py does not exist'),
        ([MINI, '--shape', 0, 64], 'cannot be counted at 0 x 64: shape must be'),
        (
            [MINI, '--shape', 64, 64, '--cfg-options', 'model.decode_head.in_channels=8,8,8,16'],
            'cannot be counted at 64 x 64: ',
        ),
        ([MINI, '--checkpoint', 'absent.pth'], 'checkpoint absent.pth does not exist'),
        ([MINI, '--checkpoint', tmp_path / 'other.pth'], 'other.pth'),
        ([MINI, '--json', tmp_path], 'is a folder'),
        ([MINI, '--json', tmp_path / 'no' / 'a.json'], 'does not exist; make it first'),
        ([MINI, '--cfg-options', 'model.backbone.type=ResNet'], 'cannot be built'),
    ):
        assert tool(*arguments) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
        assert line.startswith('error: ')
        assert message in line
