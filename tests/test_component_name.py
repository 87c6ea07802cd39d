"""The bare name of a component."""

from __future__ import annotations

import pytest
from mmengine.config.lazy import LazyObject

from mmsw.component_name import component_name
from mmsw.models import ShiftWiseNet


@pytest.mark.parametrize(
    ('kind', 'name'),
    [
        ('IoUMetric', 'IoUMetric'),
        ('mmseg.IoUMetric', 'IoUMetric'),
        ('mmseg.evaluation.metrics.IoUMetric', 'IoUMetric'),
        ('mmseg:IoUMetric', 'IoUMetric'),
        (ShiftWiseNet, 'ShiftWiseNet'),
        (LazyObject('mmsw.models', 'ShiftWiseNet'), 'ShiftWiseNet'),
        (None, ''),
    ],
)
def test_every_spelling_gives_the_bare_name(kind: object, name: str) -> None:
    assert component_name(kind) == name
