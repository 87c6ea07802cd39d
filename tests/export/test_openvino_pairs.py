"""An OpenVINO model is two files: which ones go together, and what is said where they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_segmentors import need

from mmsw.deploy.export.metadata import KEY
from mmsw.deploy.export.openvino_weights import check_pair
from mmsw.deploy.export.runtimes import open_program
from mmsw.errors import DataError

need('onnx', 'onnxscript', 'openvino')

IMAGE = np.linspace(-1, 1, 3 * 40 * 50, dtype=np.float32).reshape(1, 3, 40, 50)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The ``.xml`` of a program with large weights."""
    from test_file_writers import Tiny, write

    path = tmp_path / 'model.xml'
    write(Tiny(), path, 'openvino')
    return path


def test_both_files_may_be_renamed_and_moved(model: Path, tmp_path: Path) -> None:
    expected = open_program(model, 1).run(IMAGE)['logits']
    moved = tmp_path / 'folder of others' / 'größe.1.xml'
    moved.parent.mkdir()
    for suffix in ('.xml', '.bin'):
        model.with_suffix(suffix).rename(moved.with_suffix(suffix))
    assert np.array_equal(open_program(moved, 1).run(IMAGE)['logits'], expected)


def test_weights_of_another_model_are_refused(model: Path) -> None:
    """OpenVINO itself takes them, and gives other results."""
    weights = model.with_suffix('.bin')
    content = bytearray(weights.read_bytes())
    content[40] ^= 0x40
    weights.write_bytes(content)
    with pytest.raises(DataError, match=r'model\.bin holds other weights than .*model\.xml was'):
        open_program(model, 1)


@pytest.mark.parametrize('size', [0, 100, None])
def test_weights_that_are_cut_off_or_not_there(model: Path, size: int | None) -> None:
    weights = model.with_suffix('.bin')
    content = weights.read_bytes()
    weights.unlink()
    if size is not None:
        weights.write_bytes(content[:size])
    message = r'has no model\.bin beside it' if size is None else 'cannot be read .* cut off'
    with pytest.raises(DataError, match=message) as found:
        open_program(model, 1)
    assert '\n' not in str(found.value)


def test_a_file_from_before_digests(model: Path, tmp_path: Path) -> None:
    """It is taken as it is."""
    import openvino

    core = openvino.Core()
    graph, old = core.read_model(model), tmp_path / 'old.xml'
    told = graph.get_rt_info([KEY]).astype(str)
    fresh = openvino.Model(graph.get_results(), graph.get_parameters())
    fresh.set_rt_info(told, [KEY])
    openvino.save_model(fresh, old, compress_to_fp16=False)
    check_pair(core.read_model(old), old)
    assert open_program(old, 1).run(IMAGE)['logits'].shape == (1, 5, 40, 50)
