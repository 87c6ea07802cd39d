"""Machine code that AOTInductor makes of a ``.pt2`` file."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from run_tool import tool
from small_models import SEGMENTOR, WHOLE, model_of, save, write_pictures
from tiny_segmentors import metadata_of
from torch import Tensor, nn
from torch._inductor import cpp_builder

from mmsw.deploy.export import Program, compiled
from mmsw.deploy.export.compiled import compile_file, is_compiled
from mmsw.deploy.export.runtimes import open_program
from mmsw.deploy.export.writers import write_program
from mmsw.errors import DataError, UsageError

try:
    cpp_builder.get_cpp_compiler()
except Exception:
    pytest.skip('compiler: torch finds no C++ compiler', allow_module_level=True)


class Tiny(Program):
    task = 'segmentation'
    outputs = ('logits', 'means')
    settings = {'mode': 'whole'}

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        found = self.conv(image)
        return found, nn.functional.adaptive_avg_pool2d(found, 3)


@pytest.fixture(scope='module')
def program() -> Program:
    torch.manual_seed(0)
    return Tiny()


@pytest.fixture(scope='module')
def path(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, example = tmp_path_factory.mktemp('compiled'), torch.randn(2, 3, 32, 48)
    meta = metadata_of(program)
    write_program(
        program, folder / 'graph.pt2', format='torch', example=example, dynamic=True, metadata=meta
    )
    compile_file(folder / 'graph.pt2', folder / 'code.pt2', example)
    return folder / 'code.pt2'


def test_it_gives_what_the_program_gives(program: Program, path: Path) -> None:
    assert is_compiled(path)
    assert not is_compiled(path.with_name('graph.pt2'))
    opened = open_program(path)
    assert opened.metadata == metadata_of(program)
    for shape in ((1, 3, 32, 48), (2, 3, 33, 41), (3, 3, 70, 35)):
        image = torch.randn(shape)
        found, expected = opened.run(image.numpy()), program(image)
        for name, tensor in zip(program.outputs, expected, strict=True):
            np.testing.assert_allclose(found[name], tensor.detach(), rtol=1e-5, atol=1e-6)


def test_it_needs_torch_alone(program: Program, path: Path, tmp_path: Path) -> None:
    image = torch.randn(1, 3, 37, 52)
    torch.save(image, tmp_path / 'image.pt')
    code = (
        'import sys; sys.modules.update(dict.fromkeys(["mmsw", "mmcv", "mmengine"])); import torch;'
        'run = torch._inductor.aoti_load_package(sys.argv[1]);'
        'torch.save(run(torch.load("image.pt")), "found.pt")'
    )
    subprocess.run([sys.executable, '-c', code, path], check=True, cwd=tmp_path)
    for found, expected in zip(torch.load(tmp_path / 'found.pt'), program(image), strict=True):
        torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-6)


def test_another_processor_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = compiled._abilities() - {'sse2', 'asimd'}
    if lacking == compiled._abilities():
        pytest.skip('proc: this system does not list what its processor can do')
    monkeypatch.setattr(compiled, '_abilities', lambda: lacking)
    with pytest.raises(
        DataError, match=r'compiled for a processor that has (sse2|asimd), and this'
    ):
        open_program(path)


def test_a_truncated_file(path: Path, tmp_path: Path) -> None:
    cut = tmp_path / 'cut.pt2'
    cut.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r'cannot be read .* damaged, cut off'):
        open_program(cut)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(cut, 'w') as part:
        for name in whole.namelist():
            if not name.endswith('.so'):
                part.writestr(name, whole.read(name))
    with pytest.raises(DataError, match='cannot be read'):
        open_program(cut)


def test_what_cannot_be_compiled(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No word of torch is shown whole, and nothing is left."""

    def fails(*args: object, **kwargs: object) -> None:
        raise RuntimeError('g++ failed\nand much more')

    monkeypatch.setattr(torch._inductor, 'aoti_compile_and_package', fails)
    with pytest.raises(UsageError, match=r'cannot compile .*g\+\+ failed.*leave --compile out'):
        compile_file(path.with_name('graph.pt2'), tmp_path / 'a.pt2', torch.randn(1, 3, 32, 48))
    assert not list(tmp_path.iterdir())


def test_refused_before_a_model_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    words = ('export', SEGMENTOR, tmp_path / 'no.pth', '--compile', '--out')
    assert tool(*words, tmp_path / 'a.onnx') == 2
    assert 'compile is for format torch, and this is onnx' in capsys.readouterr().err
    monkeypatch.setattr('torch._inductor.config.cpp.cxx', ('no_such_compiler',))
    cpp_builder.cpp_compiler_search.cache_clear()
    assert tool(*words, tmp_path / 'a.pt2') == 2
    cpp_builder.cpp_compiler_search.cache_clear()
    assert 'compiling needs a C++ compiler' in capsys.readouterr().err


MASKS = Path(__file__).parents[2] / 'configs/demo/mask_rcnn_sw_mini_scenes.py'
TRAINED = {SEGMENTOR: WHOLE, MASKS: {'model.test_cfg.rcnn.score_thr': 0.0}}


@pytest.mark.slow
@pytest.mark.parametrize('config', TRAINED, ids=['segmentor', 'masks'])
def test_a_trained_model(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The tool compares it with PyTorch, and leaves it if it is the same."""
    options = TRAINED[config]
    checkpoint = save(model_of(config, options), tmp_path / 'a.pth')
    photos = write_pictures(tmp_path / 'photos', (120, 150))
    out = tmp_path / 'a.pt2'
    words = ['--out', out, '--compile', '--verify', photos, '--cfg-options']
    assert (
        tool(
            'export',
            config,
            checkpoint,
            *words,
            *(f'{key}={value}' for key, value in options.items()),
        )
        == 0
    )
    report = ' '.join(capsys.readouterr().out.split())
    assert 'compiled for processors like this one' in report
    assert config == SEGMENTOR or ' 0 in PyTorch' not in report
    assert is_compiled(out)
    assert tool('predict', out, photos, '--out', tmp_path / 'predicted') == 0
    assert (tmp_path / 'predicted' / 'overlay' / '0.png').is_file()
