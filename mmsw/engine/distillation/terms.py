"""What is distilled: which layers are compared, by which distance, with which weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from mmsw.errors import UsageError
from mmsw.wording import listed

from .distances import NORMALISED_OVER, decorrelation, divergence

LOGITS = 'decode_head.conv_seg'  # the layer of a segmentor that gives its logits


@dataclass(frozen=True)
class Term:
    """One loss.

    Attributes:
        name: Under which it is added to the losses of the model and logged.
        layers: Layer of the student -> layer of the teacher, by their names in the models.
        weight: Factor of the loss; with 0 it has no gradient.
        distance: Of maps ``[N, C, H, W]`` of the student and of the teacher.
    """

    name: str
    layers: Mapping[str, str]
    weight: float
    distance: Callable[[Tensor, Tensor], Tensor]


def logits_term(settings: Mapping[str, Any]) -> Term:
    """The loss on the logits of a segmentor.

    Args:
        settings: ``weight``, ``temperature`` and ``over``, each with a default.

    Raises:
        UsageError: If there is another setting, or one has a value that makes no sense.
    """
    given = _settings('logits', settings, dict(weight=3.0, temperature=4.0, over='space'))
    temperature = _number('logits.temperature', given['temperature'])
    if not temperature:
        raise UsageError('DistillationHook: logits.temperature must be above 0, got 0')
    if given['over'] not in NORMALISED_OVER:
        raise UsageError(
            f'DistillationHook: logits.over must be one of {list(NORMALISED_OVER)}, got '
            f'{given["over"]!r}'
        )
    distance = partial(divergence, temperature=temperature, over=given['over'])
    weight = _number('logits.weight', given['weight'])
    return Term('loss_distill_logits', {LOGITS: LOGITS}, weight, distance)


def features_term(settings: Mapping[str, Any] | Sequence[str]) -> Term:
    """The loss on the outputs of layers.

    Args:
        settings: Names of layers; or a dict of ``layers``, which is a list of names or a dict of
            names in the student -> names in the teacher, and of ``weight``.

    Raises:
        UsageError: If there is another setting, or one has a value that makes no sense.
    """
    if not isinstance(settings, Mapping):
        settings = dict(layers=settings)
    given = _settings('features', settings, dict(layers=(), weight=1.0))
    layers = given['layers']
    if isinstance(layers, (list, tuple)):
        named = [str(name) for name in layers]
        layers = dict(zip(named, named, strict=True))
    if not isinstance(layers, Mapping) or not layers:
        raise UsageError(
            "DistillationHook: features must name layers, such as ['neck'] or "
            f"dict(layers={{'backbone.stages.3': 'backbone.layer4'}}), got {given['layers']!r}"
        )
    weight = _number('features.weight', given['weight'])
    return Term('loss_distill_features', dict(layers), weight, decorrelation)


def _settings(what: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise UsageError(
            f'DistillationHook: {what} must be a dict of {listed(defaults)}, or None, got {given!r}'
        )
    unknown = [name for name in given if name not in defaults]
    if unknown:
        raise UsageError(
            f'DistillationHook: {what} has no setting {listed(unknown)}; expected '
            f'{listed(defaults)}'
        )
    return {**defaults, **given}


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(f'DistillationHook: {name} must be a number, got {value!r}')
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f'DistillationHook: {name} must be finite and not negative, got {value}')
    return float(value)
