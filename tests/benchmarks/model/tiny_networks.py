"""Tiny networks for the tests of the benchmark of whole networks."""

from __future__ import annotations

from torch import nn

from mmsw.benchmarks.model.convnext import ConvNeXt
from mmsw.benchmarks.model.networks import EVAL, OWN_FORMS, Network, enliven
from mmsw.models.backbones import ShiftWiseNet

TINY = dict(
    arch=dict(depths=[1, 1, 1, 1], dims=[8, 8, 16, 16]), big_kernels=(7, 7, 7, 5), num_reps=1
)

FORMS = [form for form in OWN_FORMS if form.start is None]  # exporting takes seconds


def tiny_networks() -> list[Network]:
    def own(version: str) -> nn.Module:
        return enliven(ShiftWiseNet(version=version, **TINY), seed=0)

    def missing() -> nn.Module:
        raise ImportError('nothing is not installed')

    return [
        Network('SW-T v1', lambda: own('v1'), FORMS),
        Network('SW-S v2', lambda: own('v2'), FORMS, main=()),
        Network('ConvNeXt-T', lambda: ConvNeXt((1, 1, 1, 1), (4, 4, 8, 8)), source='plain torch'),
        Network('Simple', lambda: ConvNeXt((1, 1, 1, 1), (4, 4, 4, 4)), main=(EVAL,)),
        Network('Other', missing, source='nothing'),
    ]
