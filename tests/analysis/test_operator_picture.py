"""The picture that explains the operator shows what the operator does."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from mmsw.analysis import draw_operator
from mmsw.analysis.operator_picture import cross_kernel, slots
from mmsw.figure import INK
from mmsw.ops import ShiftPattern, shift_wise_conv2d


def load_tool() -> ModuleType:
    path = Path(__file__).parents[2] / 'tools/draw_operator.py'
    spec = importlib.util.spec_from_file_location('draw_operator_tool', path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


@pytest.fixture(autouse=True)
def _tools_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / 'tools'))


@pytest.mark.parametrize(('big', 'small', 'reps'), [(51, 3, 4), (13, 5, 2), (31, 3, 1)])
def test_cross_kernel_answers_an_impulse(big, small, reps):
    pattern = ShiftPattern.draw(big, small, channels=1, num_reps=reps)
    weight = torch.randn(pattern.num_groups, 1, small, small, dtype=torch.float64)
    kernel = cross_kernel(weight, pattern)
    side = len(kernel)
    impulse = torch.zeros(1, 1, side, side, dtype=torch.float64)
    impulse[0, 0, side // 2, side // 2] = 1
    answer = sum(shift_wise_conv2d(impulse, weight, pattern))[0, 0]
    torch.testing.assert_close(answer, kernel.flip(0, 1))  # a convolution layer correlates


@pytest.mark.parametrize('big', [51, 31])
def test_slots_are_where_the_kernels_lie(big):
    pattern = ShiftPattern.draw(big, 3, channels=1, num_reps=1)
    weight = torch.randn(pattern.num_groups, 1, 3, 3)
    kernel = cross_kernel(weight, pattern)
    start = len(kernel) // 2 - 1
    first = len(kernel) // 2 - big // 2  # first tap of slot 0
    for arm, places in enumerate(slots(pattern)):
        assert sorted(places) == list(range(pattern.num_groups))
        for group, slot in enumerate(places):
            along = slice(first + 3 * slot, first + 3 * slot + 3)
            if abs(first + 3 * slot - start) < 3:
                continue  # the arms overlap here
            across = slice(start, start + 3)
            found = kernel[across, along] if arm == 0 else kernel[along, across]
            assert torch.equal(found, weight[group, 0])


def test_picture_from_the_command_line(tmp_path, capsys):
    cv2 = pytest.importorskip('cv2', reason='cv2: absent; reads the picture back')
    pytest.importorskip('matplotlib', reason='matplotlib: absent; draws the picture')
    path = tmp_path / 'docs/operator.png'
    assert load_tool().main([str(path)]) == 0
    picture = cv2.imread(str(path))
    assert picture.shape[1] > 1000
    assert picture.std() > 20
    assert path.stat().st_size < 400_000
    assert [item.name for item in path.parent.iterdir()] == ['operator.png']
    assert load_tool().main([str(path), '--sparsity', '1']) == 2
    assert capsys.readouterr().err == 'error: sparsity must be in [0, 1), got 1.0\n'
    with pytest.raises(ValueError, match='small_kernel must be odd, got 4'):
        draw_operator(path, small_kernel=4)


def test_vector_picture_is_the_same_each_time_and_turns_dark(tmp_path):
    pytest.importorskip('matplotlib', reason='matplotlib: absent; draws the picture')
    for name in ('one.svg', 'two.svg'):
        draw_operator(tmp_path / name, 13, 3, num_reps=1)
    text = (tmp_path / 'one.svg').read_text(encoding='utf-8')
    assert text == (tmp_path / 'two.svg').read_text(encoding='utf-8')
    assert f'@media (prefers-color-scheme: dark){{[style*="fill: {INK}"]' in text
    assert f'style="fill: {INK}"' in text  # what the rule is for
    assert '<text' not in text  # no font is needed
    assert 'dc:date' not in text
