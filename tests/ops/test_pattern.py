"""ShiftPattern: what is drawn, what is refused, and how it travels with its layer."""

import copy
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mmsw.ops.pattern as pattern_module
from mmsw.ops import ShiftPattern
from mmsw.ops.pattern_tables import shift_slot, slot_shift

GOLDEN = ['13_5_r4', '47_3_r2', '49_3_r4', '51_5_r1', '51_5_r4']


class Layer(nn.Module):
    """The least layer that owns a pattern."""

    def __init__(self, seed: int = 123) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.pattern = ShiftPattern.draw(13, 3, 4, 2, seed=seed)


def tables(pattern: ShiftPattern) -> tuple[Tensor, Tensor]:
    return pattern.shift_hv.clone(), pattern.identity_index.clone()


def assert_same_pattern(found: ShiftPattern, expected: ShiftPattern) -> None:
    assert torch.equal(found.shift_hv, expected.shift_hv)
    assert torch.equal(found.identity_index, expected.identity_index)
    assert found.extra_repr() == expected.extra_repr()


@pytest.mark.parametrize('case', GOLDEN)
def test_draw_reproduces_the_published_patterns(case: str, data_dir: Path) -> None:
    with np.load(data_dir / f'shift_add_{case}.npz') as golden:
        sizes = (golden[k].item() for k in ('big_kernel', 'small_kernel', 'num_channels'))
        pattern = ShiftPattern.draw(*sizes, golden['num_reps'].item())
        assert pattern.shift_hv.dtype == torch.int32
        assert pattern.identity_index.dtype == torch.int64
        np.testing.assert_array_equal(pattern.shift_hv.numpy(), golden['shift_hv'])
        np.testing.assert_array_equal(pattern.identity_index.numpy(), golden['identity_index'])


def test_another_seed_is_another_pattern() -> None:
    first, second = ShiftPattern.draw(47, 3, 5, 2), ShiftPattern.draw(47, 3, 5, 2, seed=124)
    assert not torch.equal(first.shift_hv, second.shift_hv)
    assert not torch.equal(first.identity_index, second.identity_index)


def test_draw_leaves_the_global_random_states_alone() -> None:
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    numpy_state = np.random.get_state()
    ShiftPattern.draw(51, 5, 7, 4)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    assert all(
        np.array_equal(a, b) for a, b in zip(np.random.get_state(), numpy_state, strict=True)
    )


def test_sizes_may_be_whole_numbers_of_numpy() -> None:
    pattern = ShiftPattern.draw(np.int64(13), np.int32(3), np.uint8(4), np.int64(2))
    for found, plain in zip(tables(pattern), tables(ShiftPattern.draw(13, 3, 4, 2)), strict=True):
        assert torch.equal(found, plain)
    assert type(pattern.big_kernel) is type(pattern.small_kernel) is int
    again = ShiftPattern(np.int64(13), np.int64(3), *tables(pattern))
    assert type(again.big_kernel) is type(again.small_kernel) is int


@pytest.mark.parametrize(
    ('big_kernel', 'small_kernel', 'groups', 'margin', 'taps'),
    [
        (51, 3, 17, 1, 51),
        (49, 3, 17, 1, 53),
        (47, 3, 16, 1, 49),
        (13, 3, 5, 1, 17),
        (51, 5, 11, 2, 59),
        (49, 5, 10, 2, 51),
        (13, 5, 3, 2, 17),
        (5, 3, 2, 1, 7),
        (3, 3, 1, 1, 3),
        (7, 1, 7, 0, 7),
    ],
)
def test_sizes(big_kernel: int, small_kernel: int, groups: int, margin: int, taps: int) -> None:
    pattern = ShiftPattern.draw(big_kernel, small_kernel, 2, 1)
    assert pattern.num_groups == groups
    assert pattern.margin == margin
    assert 2 * pattern.reach + 1 == taps
    slots = torch.arange(groups)
    shifts = slot_shift(slots, big_kernel, small_kernel)
    assert shifts.tolist() == [
        big_kernel // 2 - i * small_kernel - (small_kernel - 1) for i in range(groups)
    ]
    assert torch.equal(shift_slot(shifts, big_kernel, small_kernel), slots)


@pytest.mark.parametrize('dtype', [torch.int32, torch.int64])
def test_tables_may_come_from_outside(dtype: torch.dtype) -> None:
    shift_hv, identity_index = tables(ShiftPattern.draw(13, 3, 4, 2))
    wide = torch.stack([shift_hv, shift_hv], dim=2).to(dtype)[..., 0]  # not contiguous
    pattern = ShiftPattern(13, 3, wide, identity_index.to(dtype))
    assert_same_pattern(pattern, ShiftPattern.draw(13, 3, 4, 2))
    assert pattern.shift_hv.dtype == torch.int32
    assert pattern.identity_index.dtype == torch.int64


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((0, 3, 4, 2), 'big_kernel must be a positive integer, got 0'),
        ((13.0, 3, 4, 2), r'big_kernel must be a positive integer, got 13\.0'),
        (('13', 3, 4, 2), "big_kernel must be a positive integer, got '13'"),
        ((True, 1, 4, 2), 'big_kernel must be a positive integer, got True'),
        ((13, -3, 4, 2), 'small_kernel must be a positive integer, got -3'),
        ((13, 4, 4, 2), 'small_kernel must be odd, got 4'),
        ((3, 5, 4, 2), 'small_kernel must not exceed big_kernel, got 5 > 3'),
        ((13, 3, 0, 2), 'channels must be a positive integer, got 0'),
        ((13, 3, 4.0, 2), r'channels must be a positive integer, got 4\.0'),
        ((13, 3, 4, 0), 'num_reps must be a positive integer, got 0'),
        ((13, 3, 4, True), 'num_reps must be a positive integer, got True'),
    ],
)
def test_draw_refuses_bad_sizes(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=f'^{message}$'):
        ShiftPattern.draw(*arguments)


def _repeat_a_shift(shift_hv: Tensor, identity_index: Tensor) -> tuple[Tensor, Tensor]:
    shift_hv[0, 1] = shift_hv[1, 1]
    return shift_hv, identity_index


def _off_the_grid(shift_hv: Tensor, identity_index: Tensor) -> tuple[Tensor, Tensor]:
    return shift_hv + 1, identity_index


def _swap_channels(shift_hv: Tensor, identity_index: Tensor) -> tuple[Tensor, Tensor]:
    return shift_hv, identity_index.flip(0)


def _local_groups(shift_hv: Tensor, identity_index: Tensor) -> tuple[Tensor, Tensor]:
    return shift_hv, identity_index % 5


def _half(shift_hv: Tensor, identity_index: Tensor) -> tuple[Tensor, Tensor]:
    return shift_hv, identity_index.half()


def _fewer_channels(shift_hv: Tensor, identity_index: Tensor) -> tuple[Tensor, Tensor]:
    return shift_hv[:15], identity_index[:3]


def _fewer_repetitions(shift_hv: Tensor, identity_index: Tensor) -> tuple[Tensor, Tensor]:
    return shift_hv[:, ::2], identity_index[:, :1]


def _shifts_of_other_sizes(shift_hv: Tensor, identity_index: Tensor) -> tuple[Tensor, Tensor]:
    return shift_hv[:, :2], identity_index


def _flat(shift_hv: Tensor, identity_index: Tensor) -> tuple[Tensor, Tensor]:
    return shift_hv, identity_index.flatten()


NOT_A_PATTERN = [
    (_repeat_a_shift, r'must be a permutation of \[-8, -5, -2, 1, 4\] \(big_kernel 13'),
    (_off_the_grid, r'must be a permutation of \[-8, -5, -2, 1, 4\] \(big_kernel 13'),
    (_swap_channels, 'identity_index must name, in row c, groups of channel c only'),
    (_local_groups, 'identity_index must name, in row c, groups of channel c only'),
    (_half, r'identity_index must hold int32 or int64, got torch\.float16'),
    (_shifts_of_other_sizes, r'shape \(20, 4\) with 5 groups per channel, got \(20, 2\)'),
]


@pytest.mark.parametrize(
    ('change', 'message'),
    [*NOT_A_PATTERN, (_flat, r'identity_index \[C, R\], got \(20, 4\) and \(8,\)')],
)
def test_constructor_refuses_what_is_no_pattern(change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShiftPattern(13, 3, *change(*tables(ShiftPattern.draw(13, 3, 4, 2))))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        *NOT_A_PATTERN,
        (_flat, r'identity_index has shape \(8,\), expected \[channels, num_reps\] = \(4, 2\)'),
        (_fewer_channels, r'identity_index has shape \(3, 2\), expected .* = \(4, 2\)'),
        (_fewer_repetitions, r'identity_index has shape \(4, 1\), expected .* = \(4, 2\)'),
    ],
)
@pytest.mark.parametrize('strict', [True, False])
def test_state_dict_with_a_wrong_pattern_is_refused(change, message: str, strict: bool) -> None:
    layer, state = Layer(), Layer(seed=5).state_dict()
    keys = ('pattern.shift_hv', 'pattern.identity_index')
    state.update(zip(keys, change(*(state[key].clone() for key in keys)), strict=True))
    with pytest.raises(
        RuntimeError, match=f'shift pattern "pattern" cannot be loaded: .*{message}'
    ):
        layer.load_state_dict(state, strict=strict)
    assert_same_pattern(layer.pattern, Layer().pattern)


@pytest.mark.parametrize('strict', [True, False])
@pytest.mark.parametrize('missing', ['shift_hv', 'identity_index'])
def test_half_a_pattern_is_refused_and_nothing_of_it_is_loaded(missing: str, strict: bool) -> None:
    layer, state = Layer(), Layer(seed=5).state_dict()
    del state[f'pattern.{missing}']
    with pytest.raises(RuntimeError, match=f'"pattern" cannot be loaded: {missing} is missing'):
        layer.load_state_dict(state, strict=strict)
    assert_same_pattern(layer.pattern, Layer().pattern)


def test_state_dict_brings_the_pattern() -> None:
    layer, other = Layer(), Layer(seed=5)
    state = other.state_dict()
    assert {'pattern.shift_hv', 'pattern.identity_index'} < set(state)
    layer.load_state_dict(state)
    assert_same_pattern(layer.pattern, other.pattern)


@pytest.mark.parametrize('assign', [False, True])
def test_state_dict_of_the_first_version_is_complete(assign: bool) -> None:
    """It has no kernel_sizes, and says no version."""
    layer, other = Layer(), Layer(seed=5)
    state = other.state_dict()
    del state['pattern.kernel_sizes'], state._metadata['pattern']
    layer.load_state_dict(state, strict=True, assign=assign)
    assert_same_pattern(layer.pattern, other.pattern)
    assert layer.pattern.kernel_sizes.tolist() == [13, 3]
    assert layer.state_dict()._metadata['pattern'] == {'version': 2}


@pytest.mark.parametrize('strict', [True, False])
@pytest.mark.parametrize('alone', [False, True])
def test_kernel_sizes_of_another_pattern_are_refused(strict: bool, alone: bool) -> None:
    """The tables of 12 and 13 are the same."""
    layer, state = Layer(), Layer(seed=5).state_dict()
    state['pattern.kernel_sizes'] = torch.tensor([12, 3])
    message = r'its kernel_sizes .* are \[12, 3\], those of the layer are \[13, 3\]; build the'
    if alone:
        del state['pattern.shift_hv'], state['pattern.identity_index']
        message = 'shift_hv is missing'
    with pytest.raises(RuntimeError, match=f'"pattern" cannot be loaded: {message}'):
        layer.load_state_dict(state, strict=strict)
    assert_same_pattern(layer.pattern, Layer().pattern)


def test_a_newer_version_is_refused() -> None:
    state = Layer().state_dict()
    state._metadata['pattern']['version'] = 3
    with pytest.raises(RuntimeError, match=r'version 3 of ShiftPattern, .* up to 2: install a new'):
        Layer().load_state_dict(state, strict=False)


def test_state_dict_without_a_pattern_keeps_the_own_one() -> None:
    layer = Layer(seed=5)
    result = layer.load_state_dict({'weight': torch.ones(3)}, strict=True)
    assert not result.missing_keys
    assert not result.unexpected_keys
    assert layer.weight.tolist() == [1, 1, 1]
    assert_same_pattern(layer.pattern, Layer(seed=5).pattern)


@pytest.mark.parametrize('with_pattern', [True, False])
def test_unknown_keys_under_the_pattern_are_reported(with_pattern: bool) -> None:
    state = Layer().state_dict() if with_pattern else {'weight': torch.ones(3)}
    state['pattern.typo'] = torch.zeros(1)
    assert Layer().load_state_dict(state, strict=False).unexpected_keys == ['pattern.typo']
    with pytest.raises(RuntimeError, match=r'pattern\.typo'):
        Layer().load_state_dict(state, strict=True)


def test_state_dict_survives_a_weights_only_file(tmp_path: Path) -> None:
    torch.save(Layer(seed=5).state_dict(), tmp_path / 'state.pth')
    layer = Layer()
    layer.load_state_dict(torch.load(tmp_path / 'state.pth', weights_only=True))
    assert_same_pattern(layer.pattern, Layer(seed=5).pattern)


def test_copies_are_equal_and_independent() -> None:
    pattern = ShiftPattern.draw(13, 3, 4, 2)
    for twin in (copy.deepcopy(pattern), pickle.loads(pickle.dumps(pattern))):
        assert_same_pattern(twin, pattern)
        twin.shift_hv.zero_()
        assert pattern.shift_hv.any()


def test_casts_leave_the_tables_integer() -> None:
    layer = Layer().half()
    assert layer.weight.dtype == torch.float16
    assert layer.pattern.shift_hv.dtype == torch.int32
    assert layer.pattern.identity_index.dtype == torch.int64
    assert_same_pattern(layer.to(torch.bfloat16).pattern, Layer().pattern)


def test_moves_with_its_layer() -> None:
    layer = Layer().to('meta')
    assert layer.pattern.shift_hv.is_meta
    assert layer.pattern.identity_index.is_meta
    layer = layer.to_empty(device='cpu')
    layer.load_state_dict(Layer().state_dict())
    assert_same_pattern(layer.pattern, Layer().pattern)


def test_draw_follows_the_default_device() -> None:
    with torch.device('meta'):
        layer = Layer()
    assert layer.weight.is_meta
    assert layer.pattern.shift_hv.is_meta
    assert layer.pattern.shift_hv.shape == Layer().pattern.shift_hv.shape
    layer.load_state_dict(Layer().state_dict(), assign=True)
    assert_same_pattern(layer.pattern, Layer().pattern)


def test_repr_states_the_sizes() -> None:
    expected = 'ShiftPattern(big_kernel=13, small_kernel=3, channels=4, num_reps=2)'
    assert repr(ShiftPattern.draw(13, 3, 4, 2)) == expected


def test_patterns_are_drawn_once_and_handed_out_as_copies() -> None:
    pattern_module._draw.cache_clear()
    with torch.inference_mode():
        first = ShiftPattern.draw(13, 3, 4, 2)
    expected = [table.tolist() for table in first.buffers()]
    again = ShiftPattern.draw(13, 3, 4, 2)
    assert pattern_module._draw.cache_info().hits == 1
    assert not again.shift_hv.is_inference()
    again.shift_hv.zero_()
    again.identity_index.zero_()
    assert [table.tolist() for table in ShiftPattern.draw(13, 3, 4, 2).buffers()] == expected
