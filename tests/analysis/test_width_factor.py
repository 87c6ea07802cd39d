"""Width factors: what is counted beside the figures that the release printed for its first year."""

from __future__ import annotations

import pytest

from mmsw.analysis.complexity import complexity
from mmsw.models import ShiftWiseNet

CLASSES = 1000
# Width factor -> giga-multiply-adds at 224 x 224 and millions of parameters, as printed.
PRINTED = {1.3: (7.72, 48.01), 1.2: (6.61, 40.98), 1.1: (5.59, 34.57), 1.0: (4.66, 28.74)}


@pytest.mark.parametrize('factor', PRINTED)
def test_the_nearest_setting_is_within_half_a_per_cent(factor: float) -> None:
    """One path of 3 x 3 kernels with the ghost ratio 0.23; no setting gives all eight exactly."""
    net = ShiftWiseNet(
        'tiny', 'v1', small_kernel=3, num_paths=1, width_factor=factor, out_indices=(3,)
    )
    found = complexity(net, (224, 224)).total
    classifier = CLASSES * (net.dims[-1] + 1)
    printed_work, printed_parameters = PRINTED[factor]
    work = (found.release_count + CLASSES * net.dims[-1]) / 1e9
    assert work == pytest.approx(printed_work, rel=0.005)
    assert (found.parameters + classifier) / 1e6 == pytest.approx(printed_parameters, rel=0.005)
