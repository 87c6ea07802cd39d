"""Parameters and multiply-adds of a trained model, as far as pruning leaves them."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config
from torch import nn

from mmsw.analysis.complexity import complexity


def network_costs(model: nn.Module, cfg: Config, size: tuple[int, int]) -> dict[str, Any]:
    """Count what a model holds and does, see :func:`mmsw.analysis.complexity.complexity`.

    Args:
        model: A segmentor or detector.
        cfg: Its config, which says how many boxes the heads of a two-stage detector see.
        size: ``(H, W)`` of the input, in pixels.

    Returns:
        ``parameters`` and ``parameters_used`` (without pruned weights), ``macs`` and ``macs_used``
        (multiply-adds of one image, None where they cannot be counted), the same of the backbone
        alone under ``backbone``, and the ``input_size``.
    """
    test_cfg = cfg.model.get('test_cfg') or {}
    boxes = {}
    if 'rpn' in test_cfg and 'rcnn' in test_cfg:
        boxes['proposals'] = test_cfg.rpn.get('max_per_img', 1000)
        boxes['mask_proposals'] = min(boxes['proposals'], test_cfg.rcnn.get('max_per_img', 100))
    counts: dict[str, Any] = {'input_size': list(size)}
    try:
        found = complexity(model, size, **boxes)
    except (NotImplementedError, RuntimeError, ValueError) as error:
        # No reason to lose a trained model.
        parameters = sum(parameter.numel() for parameter in model.parameters())
        unknown = {'parameters_used': None, 'macs': None, 'macs_used': None, 'backbone': None}
        return {**counts, 'parameters': parameters, **unknown, 'uncounted': str(error)}
    for name, cost in (('', found.total), ('backbone', found.parts.get('backbone'))):
        if cost is None:
            continue
        own = {
            'parameters': cost.parameters,
            'parameters_used': cost.parameters_used,
            'macs': cost.macs_dense,
            'macs_used': cost.macs_used,
        }
        counts.update({name: own} if name else own)
    return counts
