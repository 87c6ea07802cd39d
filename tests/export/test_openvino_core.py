"""Processes that run OpenVINO go on receiving signals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# A worker of a data loader that ends is a signal too, for which torch has a handler.
SCRIPT = """\
import faulthandler, gc, signal, subprocess
faulthandler.enable()
import numpy as np
from openvino import Model, opset13 as op
from mmsw.deploy.export.openvino_core import openvino_core

def opened():
    x = op.parameter([1, 3, 8, 8], np.float32)
    weight = op.constant(np.ones((4, 3, 3, 3), np.float32))
    model = Model([op.convolution(x, weight, [1, 1], [0, 0], [0, 0], [1, 1])], [x])
    return openvino_core().compile_model(model, 'CPU')

first, second = opened(), opened()
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGCHLD, lambda *_: print('told'))
subprocess.run(['true'], check=True)
print('done')
"""


def test_models_may_be_closed_in_any_order() -> None:
    pytest.importorskip('openvino', reason='openvino: openvino is not installed')
    ended = subprocess.run(
        [sys.executable, '-c', SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ['told', 'done']
