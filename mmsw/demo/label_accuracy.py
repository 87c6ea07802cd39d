"""How often a classifier names the right class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from mmsw.errors import DataError
from mmsw.registration import register


@register(METRICS)
class DemoLabelAccuracy(BaseMetric):
    """Share of samples whose predicted label is the true one, between 0 and 1, as ``accuracy``.

    Predictions are dicts with the numbers ``pred_label`` and ``gt_label``, as
    :class:`~mmsw.demo.DemoClassifier` gives them.

    Args:
        collect_device: ``'cpu'`` or ``'gpu'``: where the results of several processes meet.
        prefix: Put before the name of the score, with a slash; None for nothing.
    """

    default_prefix = ''  # none, and no warning that there is none

    def __init__(self, collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device, prefix)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Note which predictions of a batch are right."""
        self.results += [sample['pred_label'] == sample['gt_label'] for sample in data_samples]

    def compute_metrics(self, results: list[bool]) -> dict[str, float]:
        """Share of what was right in all batches of all processes.

        Raises:
            DataError: If there was no sample.
        """
        if not results:
            raise DataError(
                'DemoLabelAccuracy got no sample to judge, expected at least one: check the data '
                'set of the loader, and that its batches reach the evaluator'
            )
        return {'accuracy': sum(results) / len(results)}
