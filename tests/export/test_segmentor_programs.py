"""Exported segmentors: mmseg's own logits, at any size, in every runtime."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import pytest
import torch
from mmengine.config import ConfigDict
from segmentor_cases import BACKBONES, HEADS, error, segmentor, write
from tiny_segmentors import by_mmseg

from mmsw.deploy.export import program_of
from mmsw.deploy.export.runtimes import open_program
from mmsw.errors import UsageError

# The traced one is 2 x 64 x 96: odd, rectangular, smaller, larger; one image and three.
SIZES = [(1, 64, 96), (3, 33, 71), (1, 131, 97), (2, 160, 64)]
SUFFIXES = {'onnx': '.onnx', 'openvino': '.xml', 'torch': '.pt2'}


def check(file: Path, model: torch.nn.Module, most: float = 5e-6) -> None:
    program = open_program(file, threads=1)
    least = program.metadata.smallest
    for batch, height, width in SIZES:
        image = torch.randn(batch, 3, max(height, least), max(width, least))
        target = by_mmseg(model, image)
        found = torch.from_numpy(program.run(image.numpy())['logits'])
        assert found.shape == target.shape
        assert found.dtype == torch.float32
        assert error(found, target) < most
        if target.shape[1] > 1:
            best = target.topk(2, 1).values
            clear = best[:, 0] - best[:, 1] > 2 * most * target.abs().max()
            assert clear.float().mean() > 0.5
            assert torch.equal(found.argmax(1)[clear], target.argmax(1)[clear])


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory):
    """Files of ``segmentor`` by its arguments, the format and the precision, written once."""
    folder, known = tmp_path_factory.mktemp('segmentors'), {}

    def file(format: str, *arguments, precision: str = 'float32') -> Path:
        key = format, arguments, precision
        if key not in known:
            path = folder / f'{len(known)}{SUFFIXES[format]}'
            known[key] = write(segmentor(*arguments), path, format, precision)
        return known[key]

    return file


@pytest.mark.parametrize('format', ['onnx', 'openvino', 'torch'])
def test_upernet_at_any_size(files, format: str) -> None:
    check(files(format, 'v2'), segmentor('v2'))


@pytest.mark.slow
@pytest.mark.parametrize('format', ['onnx', 'openvino', 'torch'])
@pytest.mark.parametrize('backbone', sorted(set(BACKBONES) - {'v2'}))
def test_other_backbones(files, backbone: str, format: str) -> None:
    check(files(format, backbone), segmentor(backbone))


@pytest.mark.slow
@pytest.mark.parametrize('format', ['onnx', 'openvino', 'torch'])
@pytest.mark.parametrize('head', sorted(set(HEADS) - {'uper'}))
def test_other_heads(files, head: str, format: str) -> None:
    check(files(format, 'resnet', head), segmentor('resnet', head))


def test_maps_that_are_enlarged_by_a_factor(files) -> None:
    """By mmseg's ``Upsample``, which makes numbers of open sizes."""
    check(files('torch', 'resnet', 'fpn'), segmentor('resnet', 'fpn'))


@pytest.mark.slow
def test_corners_that_are_aligned_and_one_channel(files) -> None:
    model = segmentor('resnet', 'uper', True, 1)
    assert program_of(model).settings == {'mode': 'whole', 'threshold': 0.4}
    check(files('onnx', 'resnet', 'uper', True, 1), model)


def test_operators_are_standard_and_folded(files) -> None:
    onnx = pytest.importorskip('onnx', reason='onnx: absent; files of onnx need it')
    model = onnx.load(files('onnx', 'v2'))
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [('', 20)]
    assert {node.domain for node in model.graph.node} == {''}
    assert not model.functions
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds['BatchNormalization'] == 0
    # one before and one behind each layer norm of maps; three turn the matrices of the pooling
    assert kinds['Transpose'] <= 2 * kinds['LayerNormalization'] + 3
    assert kinds['LayerNormalization'] == 9
    assert kinds['Gelu'] == 5  # one of each block, one of the stem
    bodies = [item.raw_data for item in model.graph.initializer if len(item.raw_data) > 1000]
    assert len(bodies) > 10
    assert len(set(bodies)) == len(bodies)
    stored = sum(len(item.raw_data) for item in model.graph.initializer)
    weights = sum(part.nbytes for part in segmentor('v2').state_dict().values())
    assert stored < 1.02 * weights
    dims = [dim.dim_param for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ['batch', '', 'height', 'width']
    text = model.SerializeToString()
    assert b'.py' not in text  # nothing tells where it was written


def test_the_model_stays_as_it_was(files) -> None:
    model = segmentor('v2')
    before = copy.deepcopy(model.state_dict())
    modules = [(name, type(part)) for name, part in model.named_modules()]
    grads = [part.requires_grad for part in model.parameters()]
    program = program_of(model)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        program(torch.randn(1, 3, 64, 64))
    files('onnx', 'v2')
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert modules == [(name, type(part)) for name, part in model.named_modules()]
    assert grads == [part.requires_grad for part in model.parameters()]
    assert torch.is_grad_enabled()
    ours = {part.data_ptr() for part in program.parameters()}
    assert ours <= {part.data_ptr() for part in model.parameters()}  # no memory of its own


def test_modes() -> None:
    model = copy.deepcopy(segmentor('resnet', 'fcn'))
    model.test_cfg = ConfigDict(mode='slide', crop_size=(64, 96), stride=(40, 60))
    program = program_of(model)
    assert program.settings == {'mode': 'slide', 'crop_size': [64, 96], 'stride': [40, 60]}
    crop = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        assert error(program(crop), model.slide_inference(crop, [{}, {}])) < 1e-6
    model.test_cfg.mode = 'other'
    with pytest.raises(UsageError, match="test mode 'other' of a EncoderDecoder"):
        program_of(model)


@pytest.mark.parametrize(
    ('backbone', 'least'), [('v1', 64), ('v2', 33), ('slak', 64), ('resnet', 33)]
)
def test_smallest_images(backbone: str, least: int) -> None:
    assert program_of(segmentor(backbone)).smallest == least


def test_what_has_no_program() -> None:
    with pytest.raises(UsageError, match='a Linear cannot be exported: a segmentor of mmseg'):
        program_of(torch.nn.Linear(1, 1))


ALONE = """
import importlib.abc, sys
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('mmsw', 'mmcv', 'mmengine', 'mmseg', 'mmdet'):
            raise ImportError(f'{name} is blocked')
sys.meta_path.insert(0, Blocked())
import torch
extra = {'mmsw.json': ''}
program = torch.export.load(sys.argv[1], extra_files=extra).module()
assert '"segmentation"' in str(extra['mmsw.json'])
with torch.no_grad():
    found = [program(image) for image in torch.load(sys.argv[2])]
torch.save(found, sys.argv[3])
assert not {name.partition('.')[0] for name in sys.modules} & {'mmsw', 'mmcv', 'mmengine'}
"""


def test_a_torch_file_runs_without_mmsw(files, tmp_path: Path) -> None:
    images = [torch.randn(batch, 3, height, width) for batch, height, width in SIZES]
    torch.save(images, tmp_path / 'images.pt')
    command = [sys.executable, '-c', ALONE, files('torch', 'v2')]
    done = subprocess.run(
        [*command, tmp_path / 'images.pt', tmp_path / 'found.pt'],
        cwd=tmp_path,
        env={'PATH': os.environ['PATH']},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for image, found in zip(images, torch.load(tmp_path / 'found.pt'), strict=True):
        assert error(found, by_mmseg(segmentor('v2'), image)) < 5e-6
