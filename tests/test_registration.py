"""A notebook may reload the package, or import it anew; a name of somebody else stays theirs."""

import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.registry import Registry

from mmsw.registration import register

ROOT = Path(__file__).resolve().parents[1]

AGAIN = """
import importlib, io, sys
import torch
from mmengine.registry import HOOKS, MODELS
import mmsw, mmsw.apis, mmsw.demo

def learn(ops):
    pattern = ops.ShiftPattern.draw(13, 3, 2, 2)
    weight = torch.ones(10, 1, 3, 3, requires_grad=True)
    x = torch.ones(1, 2, 5, 5)
    arms = ops.shift_wise_conv2d(x, weight, pattern, 'torch')
    sum(arm.sum() for arm in arms).backward()
    ops.cross_conv2d(x, torch.ones(2, 9, 3), torch.ones(2, 9, 3), torch.ones(2), 'torch')
    return float(weight.grad.sum())

def ours():
    return [name for name in list(sys.modules) if name.partition('.')[0] == 'mmsw']

before, first, old_ops = learn(mmsw.ops), mmsw.models.ShiftWiseNet, mmsw.ops
for name in ours():
    importlib.reload(sys.modules[name])
importlib.reload(mmsw)
assert learn(mmsw.ops) == learn(old_ops) == before
for name in ours():
    del sys.modules[name]
import mmsw, mmsw.apis, mmsw.demo
assert learn(mmsw.ops) == learn(old_ops) == before
assert mmsw.models.ShiftWiseNet is not first
assert MODELS.get('ShiftWiseNet') is mmsw.models.ShiftWiseNet
assert HOOKS.get('DynamicSparsityHook') is mmsw.engine.DynamicSparsityHook
tiny = dict(depths=[1, 1, 1, 1], dims=[8, 8, 8, 8])
net = MODELS.build(dict(type='ShiftWiseNet', arch=tiny, big_kernels=(5, 5, 5, 3)))
file = io.BytesIO()
from mmengine.logging import HistoryBuffer
torch.save(dict(net=net.state_dict(), log=HistoryBuffer([1.0], [1])), file)
file.seek(0)
net.load_state_dict(torch.load(file, weights_only=True)['net'])
print('as before')
"""


def test_reload_and_import_anew() -> None:
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', AGAIN],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == 'as before'


def test_a_class_replaces_itself_and_nobody_else() -> None:
    registry = Registry('things')

    def define(module: str) -> type:
        return register(registry)(type('Thing', (), {'__module__': module}))

    define('ours')
    again = define('ours')
    assert registry.get('Thing') is again
    with pytest.raises(KeyError, match='Thing is already registered in things at ours'):
        define('theirs')
    assert registry.get('Thing') is again
