"""What is said of a learning rate that does not go with the length of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from tiny_run import tiny_config

from mmsw.apis import UsageError, build_runner
from mmsw.apis.checks.schedule import schedule_problems


def loop(epochs: int = 0, iterations: int = 0, epoch: int = 10):
    """A training loop of mmengine that has not been built."""
    kind = EpochBasedTrainLoop if epochs else IterBasedTrainLoop
    made = kind.__new__(kind)
    made.dataloader = range(epoch)
    made._max_iters = iterations or epochs * epoch
    return made


def iterations(kind: str, **settings) -> dict:
    return dict(type=kind, by_epoch=False, **settings)


WARM_UP = iterations('LinearLR', start_factor=0.01, begin=0, end=50)
TO_ZERO = iterations('PolyLR', power=1.0, eta_min=0.0, begin=50, end=900)
COSINE = dict(type='mmengine.optim.CosineAnnealingLR', begin=5, T_max=95, end=100)
ENDS = 'with a learning rate of 0, but the run goes on to'


@pytest.mark.parametrize(
    ('run', 'schedulers', 'expected'),
    [
        (
            dict(iterations=2000),
            [WARM_UP, TO_ZERO],
            f'PolyLR (param_scheduler.1) ends at iteration 900 {ENDS} iteration 2000: set '
            '--cfg-options param_scheduler.1.end=2000, or train_cfg.max_iters=900',
        ),
        (
            dict(epochs=300),
            [COSINE],
            f'CosineAnnealingLR (param_scheduler.0) ends at epoch 100 {ENDS} epoch 300: set '
            '--cfg-options param_scheduler.0.end=300 param_scheduler.0.T_max=295, or '
            'train_cfg.max_epochs=100',
        ),
        (
            dict(epochs=300),
            dict(COSINE, convert_to_iter_based=True),
            f'CosineAnnealingLR (param_scheduler) ends at epoch 100 {ENDS} epoch 300',
        ),
        (
            dict(iterations=100),
            dict(critic=[iterations('LinearLR', start_factor=1.0, end_factor=0.0, end=20)]),
            f'LinearLR (param_scheduler.critic.0) ends at iteration 20 {ENDS} iteration 100',
        ),
        (
            dict(epochs=10),
            [TO_ZERO],
            'ends at iteration 900, but the run ends at iteration 100, on the way: set '
            '--cfg-options param_scheduler.0.end=100, or train_cfg.max_epochs=90',
        ),
        (
            dict(iterations=10),
            [WARM_UP],
            'LinearLR (param_scheduler.0) ends at iteration 50, but the run ends at iteration 10',
        ),
        (
            dict(iterations=50),
            [WARM_UP, TO_ZERO],
            'PolyLR (param_scheduler.1) begins at iteration 50, but the run ends at iteration 50',
        ),
        (
            dict(iterations=1000),
            [COSINE],
            'counts epochs, but train_cfg counts iterations: it never takes a step',
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_named(run: dict, schedulers, expected: str) -> None:
    (problem,) = schedule_problems(schedulers, loop(**run), 0.1)
    assert expected in problem
    assert '\n' not in problem


@pytest.mark.parametrize(
    ('run', 'schedulers'),
    [
        (dict(iterations=900), [WARM_UP, TO_ZERO]),
        (dict(iterations=920), [WARM_UP, TO_ZERO]),
        (dict(iterations=2000), [WARM_UP]),
        (dict(iterations=2000), [dict(TO_ZERO, eta_min=1e-3)]),
        (dict(iterations=2000), [TO_ZERO, iterations('ConstantLR', factor=1.0, begin=900)]),
        (dict(iterations=2000), [dict(TO_ZERO, param_name='momentum')]),
        (dict(iterations=1000), [dict(COSINE, convert_to_iter_based=True)]),
        (dict(epochs=100), [COSINE]),
        (dict(epochs=300), [dict(COSINE, eta_min_ratio=0.05)]),
        (dict(epochs=300), [dict(type='CosineAnnealingLR', T_max=100)]),
        (dict(epochs=300), [dict(COSINE, T_max=47.5)]),  # back at the full rate
        (dict(epochs=24), [dict(type='MultiStepLR', milestones=[8, 11], end=12, gamma=0.1)]),
        (dict(epochs=4), [dict(type='MultiStepLR', milestones=[8, 11], end=12, gamma=0.1)]),
        (dict(epochs=4), [dict(type='ReduceOnPlateauLR', monitor='loss')]),
        (dict(epochs=4), [dict(type='ExponentialLR', gamma=0.1), object()]),
        (dict(epochs=4), None),
    ],
)
def test_what_goes_together_needs_no_word(run: dict, schedulers) -> None:
    assert schedule_problems(schedulers, loop(**run), 0.1) == []
    assert schedule_problems(schedulers, object(), 0.1) == []  # a loop of somebody else


def test_the_runner_says_it_before_the_first_step(
    tmp_path: Path, messages: list[tuple[str, str]]
) -> None:
    cfg = tiny_config(tmp_path, iterations=4, param_scheduler=[dict(TO_ZERO, begin=0, end=1)])
    build_runner(cfg).train()
    (said,) = (index for index, (_, text) in enumerate(messages) if ENDS in text)
    assert messages[said][0] == 'WARNING'
    assert any('Checkpoints will be saved' in text for _, text in messages[said:])
    cfg.param_scheduler[0].begin = 3
    with pytest.raises(UsageError, match=r'param_scheduler of the config .* begin=3, end=1'):
        build_runner(cfg).train()
