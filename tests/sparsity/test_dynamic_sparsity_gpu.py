"""Dynamic sparse training under mmengine's real Runner on a GPU, in float32 and mixed precision."""

from __future__ import annotations

import pytest
from toy import EMA
from toy import dynamic_hook as hook
from watched import ADAMW, TOTAL, train

from mmsw.checkpoint import load_checkpoint_file
from mmsw.ops.backends import cuda_backend
from mmsw.sparsity import report

if (reason := cuda_backend.unavailable_reason()) is not None:
    pytest.skip(f'cuda: {reason}', allow_module_level=True)

AMP = dict(type='AmpOptimWrapper', optimizer=ADAMW, loss_scale=dict(init_scale=16.0))


@pytest.mark.parametrize('granularity', ['filter', 'weight'])
@pytest.mark.parametrize('grow', ['random', 'gradient', 'momentum'])
@pytest.mark.parametrize('optimizer', [None, AMP], ids=['float32', 'amp'])
def test_masks_change_and_zeros_are_exact(tmp_path, optimizer, grow, granularity) -> None:
    """``train`` looks after every iteration whether a pruned weight or its state is not zero."""
    settings = hook(start='snip', grow=grow, granularity=granularity)
    runner, watch = train(tmp_path, settings, EMA, optimizer=optimizer)
    assert watch.changes() == [2, 4]
    assert {mask.device.type for mask in watch.seen[-1].values()} == {'cuda'}
    for seen in watch.seen:
        assert sum(int(mask.sum()) for mask in seen.values()) == TOTAL * 9 // 2
    assert report(runner.model).total.weight_density == 0.5
    checkpoint = load_checkpoint_file(tmp_path / 'iter_6.pth')
    state = checkpoint['state_dict']
    pruned = {name: mask for name, mask in state.items() if name.endswith('.mask')}
    assert pruned
    for name, mask in pruned.items():
        weight = state[name.removesuffix('.mask') + '.weight']
        assert not weight[~mask.expand_as(weight)].any(), name


def test_redistribution(tmp_path) -> None:
    settings = hook(start='erk', grow='momentum', redistribution='momentum')
    _, watch = train(tmp_path, settings)
    assert watch.changes() == [2, 4]
    for seen in watch.seen:
        assert sum(int(mask.sum()) for mask in seen.values()) == TOTAL * 9 // 2
    first, last = ({n: int(m.sum()) for n, m in watch.seen[i].items()} for i in (0, -1))
    assert first != last
