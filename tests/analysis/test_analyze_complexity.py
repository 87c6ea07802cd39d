"""tools/analyze_complexity.py: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch

from mmsw.analysis.complexity import complexity_ratio, layer_cover
from mmsw.models import ShiftWiseNet
from mmsw.sparsity import magnitude_masks, set_masks

ROOT = Path(__file__).resolve().parents[2]
ARCH = dict(depths=[1, 1, 1, 1], dims=[8, 12, 16, 24])
KERNELS = (13, 11, 9, 7)
CONFIG = f"""default_scope = 'mmengine'
model = dict(backbone=dict(type='ShiftWiseNet', arch={ARCH}, big_kernels={KERNELS}))
"""


@pytest.fixture(autouse=True)
def _tools_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / 'mini.py'
    path.write_text(CONFIG)
    return path


def tool(*arguments: object) -> int:
    """Runs the tool in this process; returns the exit code."""
    main = runpy.run_path(str(ROOT / 'tools/analyze_complexity.py'))['main']
    return main([str(argument) for argument in arguments])


def test_ratios(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / 'ratios.json'
    assert tool('ratios', '--json', out, '--map-size', 14, 14) == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()[1:7]]
    assert [row[4] for row in rows] == ['1.85', '1.96', '1.88', '2.00', '1.73', '2.00']
    assert [row[6:] for row in rows] == [['1.85'], ['1.96'], [], ['2.00'], ['1.73'], ['2.00']]
    flat = ' '.join(printed.split())
    assert 'the text names M = 47, but the ratio that it prints there, 2.00, belongs to M' in flat
    data = json.loads(out.read_text())
    assert data['format'] == 'mmsw.complexity_ratios/1'
    assert [row['ratio'] for row in data['ratios']] == [
        complexity_ratio(m, 5) for m in (51, 49, 47, 45, 13, 5)
    ]
    assert data['ratios'][2]['published'] is None
    assert all(row['with_border'] < row['ratio'] for row in data['ratios'])
    assert tool('ratios', '--kernels', 47, 45, '--small-kernel', 3) == 0
    assert 'the text names' not in capsys.readouterr().out


def test_modules_of_a_pruned_network(config, tmp_path, capsys) -> None:
    net = ShiftWiseNet(ARCH, big_kernels=KERNELS)
    set_masks(net, magnitude_masks(net, 0.9))
    torch.save(net.state_dict(), tmp_path / 'net.pth')
    out = tmp_path / 'modules.json'
    arguments = ('--checkpoint', tmp_path / 'net.pth', '--shape', 64, 96, '--json', out)
    assert tool('modules', config, *arguments, '--width-factor', 1, '--slak', 'small') == 0
    printed = capsys.readouterr().out
    assert 'A: SLaK, small, width 1;' in printed
    assert 'image of 64 x 96' in printed
    data = json.loads(out.read_text())
    assert data['format'] == 'mmsw.complexity_modules/1'
    for stage, channels in zip(data['stages'], (96, 192, 384, 768), strict=True):
        assert stage['slak']['channels'] == channels
        assert 0 < stage['shift_wise']['cross_used'] < stage['shift_wise']['cross']
        assert f'{stage["slak"]["parameters"]:,}' in printed
        assert f'{stage["parameter_ratio"]:.2f}' in printed
    assert f'{data["total"]["slak_parameters"]:,}' in printed


def test_cover_of_a_config(config, tmp_path, capsys) -> None:
    out = tmp_path / 'cover.json'
    options = ('--cfg-options', 'model.backbone.num_reps=1')
    assert tool('cover', config, '--shape', 32, 32, '--json', out, *options) == 0
    printed = ' '.join(capsys.readouterr().out.split())
    data = json.loads(out.read_text())
    assert data['format'] == 'mmsw.complexity_cover/1'
    net = ShiftWiseNet(ARCH, big_kernels=KERNELS, num_reps=1)
    found = [
        layer_cover(blocks[0].shift_wise.pattern, size, size)
        for blocks, size in zip(net.stages, (8, 4, 2, 1), strict=True)
    ]
    assert [stage['total']['used'] for stage in data['stages']] == [f.used for f in found]
    assert [stage['total']['idle_filters'] for stage in data['stages']] == [
        part.idle_filters for part in found
    ]
    idle = sum(part.idle_filters for part in found)
    assert f'{idle:,} filters have no slot that reads anything' in printed
    assert 'Slots that read nothing: ' in printed
    assert f'{found[0].used_share:.1%}' in printed


def test_large_maps_use_nearly_all(config, capsys) -> None:
    assert tool('cover', config, '--shape', 2048, 2048) == 0
    printed = capsys.readouterr().out
    assert 'Slots that read nothing' not in printed
    assert 'no gradient' not in printed


def test_errors_are_one_line(config, tmp_path, capsys) -> None:
    def refused(*arguments: object) -> str:
        assert tool(*arguments) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith('error: ')
        assert captured.err.count('\n') == 1
        assert not captured.out
        return captured.err

    assert 'small_kernel must be odd, got 4' in refused('ratios', '--small-kernel', 4)
    assert 'big_kernel must be' in refused('ratios', '--kernels', -1)
    assert 'height must be' in refused('ratios', '--map-size', 0, 4)
    assert 'does not exist; make it first' in refused('ratios', '--json', tmp_path / 'no/x.json')
    assert 'absent.py does not exist' in refused('cover', tmp_path / 'absent.py')
    assert 'shape must be (H, W)' in refused('cover', config, '--shape', 0, 32)
    assert 'name the config as well' in refused('cover', '--cfg-options', 'a=1')
    assert 'width_factor must be positive' in refused('modules', config, '--width-factor', -1)
    absent = tmp_path / 'absent.pth'
    assert 'absent.pth does not exist' in refused('modules', config, '--checkpoint', absent)
    config.write_text("default_scope = 'mmengine'\nmodel = dict(backbone=dict(type='Conv2d', "
                      "in_channels=1, out_channels=1, kernel_size=1))\n")  # fmt: skip
    assert 'is a Conv2d, expected a ShiftWiseNet' in refused('cover', config)
    config.write_text("default_scope = 'mmengine'\nmodel = dict(type='Other')\n")
    assert 'has no backbone' in refused('modules', config)


def test_a_command_is_needed(capsys) -> None:
    with pytest.raises(SystemExit, match='2'):
        tool()
    assert 'COMMAND' in capsys.readouterr().err
