"""Whether the schedule of the learning rate goes with the length of a run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from mmengine.runner import BaseLoop, IterBasedTrainLoop

from mmsw.component_name import component_name

_SLACK = 0.05  # share of a run, or of a curve, that does not matter
_NEARLY_ZERO = 1e-3  # of the rate to begin with


def schedule_problems(schedulers: Any, loop: BaseLoop, rate: Any = None) -> list[str]:
    """What is wrong with schedulers of the learning rate in a run of a certain length.

    Curves that end long before the run and leave the rate at nothing, curves that the run cuts off,
    and schedulers that never begin or step. Rates that end at a floor are in order, and so are
    steps (``MultiStepLR``) that lie after the end of the run.

    Args:
        schedulers: ``param_scheduler`` of a config.
        loop: Training loop; others than mmengine's need not say how long they are.
        rate: Learning rate to begin with, where it is known.

    Returns:
        One sentence per problem.
    """
    length = getattr(loop, 'max_iters', None)
    if not isinstance(length, int):
        return []
    epoch = _iterations_per_epoch(loop)
    steps_in_epochs = not isinstance(loop, IterBasedTrainLoop)
    problems = []
    for group in _groups(schedulers, 'param_scheduler'):
        curves = [
            _Curve.of(item, key, epoch)
            for key, item in group.items()
            if isinstance(item, dict) and item.get('param_name', 'lr') == 'lr'
        ]
        for curve in curves:
            if not curve.unit:
                continue
            if curve.in_epochs and not (steps_in_epochs or curve.converted):
                problems.append(
                    f'{curve} counts epochs, but train_cfg counts iterations: it never takes a '
                    f'step. Set --cfg-options {curve.key}.by_epoch=False, with begin and end in '
                    'iterations'
                )
            elif curve.begin >= length:
                problems.append(
                    f'{curve} begins at {curve.shown(curve.begin)}, but the run ends at '
                    f'{curve.shown(length)}: it changes nothing. Train for longer, or lower '
                    f'{curve.key}.begin'
                )
            elif curve.is_cut(length):
                problems.append(
                    f'{curve} ends at {curve.shown(curve.end)}, but the run ends at '
                    f'{curve.shown(length)}, on the way: {_cure(curve, length, loop)}'
                )
            elif curve.leaves_nothing(length, rate) and not any(
                other.begin >= curve.end for other in curves
            ):
                problems.append(
                    f'{curve} ends at {curve.shown(curve.end)} with a learning rate of 0, but the '
                    f'run goes on to {curve.shown(length)}: {_cure(curve, length, loop)}'
                )
    return problems


def _iterations_per_epoch(loop: BaseLoop) -> int:
    try:
        return len(loop.dataloader)
    except (AttributeError, TypeError, NotImplementedError):  # a stream of data
        return 0


def _groups(schedulers: Any, key: str) -> Iterator[dict[str, Any]]:
    """The schedulers of every optimizer, by their dotted keys."""
    if isinstance(schedulers, (list, tuple)):
        yield {f'{key}.{index}': item for index, item in enumerate(schedulers)}
    elif isinstance(schedulers, dict) and 'type' not in schedulers:  # of several optimizers
        for name, inner in schedulers.items():
            yield from _groups(inner, f'{key}.{name}')
    else:
        yield {key: schedulers}


def _cure(curve: _Curve, length: int, loop: BaseLoop) -> str:
    """Options that end the curve with the run, or the run with the curve."""
    end = math.ceil(length / curve.unit)
    fitted = f'{curve.key}.end={end}'
    if 'T_max' in curve.config:
        fitted += f' {curve.key}.T_max={end - (curve.config.get("begin") or 0)}'
    if isinstance(loop, IterBasedTrainLoop):
        return f'set --cfg-options {fitted}, or train_cfg.max_iters={curve.end}'
    epochs = math.ceil(curve.end / max(1, _iterations_per_epoch(loop)))
    return f'set --cfg-options {fitted}, or train_cfg.max_epochs={epochs}'


@dataclasses.dataclass(frozen=True)
class _Curve:
    """A scheduler of a config.

    Attributes:
        config: Its dict.
        key: Where it stands in the config.
        unit: Iterations in what it counts; 0 if nobody knows.
        begin: First iteration.
        end: Iteration at which it ends; infinite if it does not.
    """

    config: dict
    key: str
    unit: int
    begin: float
    end: float

    @classmethod
    def of(cls, config: dict, key: str, epoch: int) -> _Curve:
        unit = epoch if config.get('by_epoch', True) else 1
        begin, end = config.get('begin') or 0, config.get('end') or math.inf
        if end >= 1_000_000_000:  # how mmengine writes infinity
            end = math.inf
        return cls(config, key, unit, begin * max(1, unit), end * max(1, unit))

    def __str__(self) -> str:
        return f'{self.name} ({self.key})'

    @property
    def name(self) -> str:
        return component_name(self.config.get('type'))

    @property
    def in_epochs(self) -> bool:
        return bool(self.config.get('by_epoch', True))

    @property
    def converted(self) -> bool:
        """Whether it counts epochs in the config and steps in iterations."""
        return bool(self.config.get('convert_to_iter_based'))

    def shown(self, iteration: float) -> str:
        if not self.in_epochs:
            return f'iteration {iteration:g}' if iteration % 1 else f'iteration {int(iteration)}'
        return f'epoch {iteration / self.unit:.3g}'

    def is_cut(self, length: int) -> bool:
        """Whether it is a curve that the run ends long before the end of."""
        if self.name not in ('PolyLR', 'CosineAnnealingLR', 'LinearLR', 'ConstantLR'):
            return False
        if math.isinf(self.end):
            return False
        return self.end - length > _SLACK * (self.end - self.begin)

    def leaves_nothing(self, length: int, rate: Any) -> bool:
        """Whether the rate is about 0 for a good part of the run after its end."""
        if length - self.end <= _SLACK * length:
            return False
        floor = self.config.get('eta_min') or 0.0
        if self.name == 'LinearLR':
            return self.config.get('end_factor', 1.0) < _NEARLY_ZERO
        if self.name == 'CosineAnnealingLR':
            share = self.config.get('eta_min_ratio') or 0.0
            span = (self.end - self.begin) / self.unit
            turns = span / (self.config.get('T_max') or span)
            return share + (1 + math.cos(math.pi * turns)) / 2 < _NEARLY_ZERO and _is_nothing(
                floor, rate
            )
        return self.name == 'PolyLR' and _is_nothing(floor, rate)


def _is_nothing(floor: float, rate: Any) -> bool:
    return floor < _NEARLY_ZERO * rate if isinstance(rate, (int, float)) else floor == 0
