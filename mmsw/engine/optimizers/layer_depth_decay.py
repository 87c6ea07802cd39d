"""Layer-wise learning rate decay that asks the network itself how deep a parameter lies."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

from mmengine.logging import MMLogger, print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from mmsw.registration import register

_LAST_STAGE = 1  # its distance from what is trained at the full rate


@register(OPTIM_WRAPPER_CONSTRUCTORS)
class LayerDepthDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Parameter groups whose learning rate falls with the distance from the output.

    Every module with ``get_layer_depth(param_name, prefix) -> (depth, num_layers)`` is a backbone:
    its parameters get ``lr * decay_rate ** (num_layers - 1 - depth)``, on top of what the options
    of mmengine's default constructor make of ``lr``. Parameters outside of any backbone keep their
    learning rate. All options of the default constructor work: ``norm_decay_mult``,
    ``bias_decay_mult``, ``flat_decay_mult``, ``custom_keys``, ...

    Parameters with the same settings share a group, so an optimizer updates them together. Frozen
    parameters are left out; a trainable one never is.

    Args:
        optim_wrapper_cfg: Config of the optimizer wrapper with its ``optimizer``. Left unchanged.
        paramwise_cfg: ``decay_rate`` in (0, 1], where 1 means no decay, and any option of
            :class:`mmengine.optim.DefaultOptimWrapperConstructor`. ``num_layers``, as in published
            recipes, says how many layers lie below the head, the stem not counted. If it is more
            than the network has (9 in SW-T v2, 12 in SW-S), all layers below the last stage lie
            that much deeper. Left unchanged.

    Raises:
        ValueError: If ``decay_rate`` is missing or out of range, or has no ``lr`` to scale; on the
            call, if the model has no ``get_layer_depth``, has more layers than ``num_layers``, or
            shares a parameter between modules without ``bypass_duplicate=True``.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        super().__init__(copy.deepcopy(optim_wrapper_cfg), copy.deepcopy(paramwise_cfg))
        decay_rate = self.paramwise_cfg.get('decay_rate')
        if (
            isinstance(decay_rate, bool)
            or not isinstance(decay_rate, (int, float))
            or not 0 < decay_rate <= 1
        ):
            raise ValueError(
                'paramwise_cfg needs a decay_rate in (0, 1], where 1 means no layer-wise decay, '
                f'got {decay_rate!r}'
            )
        if decay_rate < 1 and self.base_lr is None:
            raise ValueError(
                f'decay_rate={decay_rate} scales the lr of the optimizer, but it has none: '
                'write optimizer=dict(..., lr=...)'
            )
        num_layers = self.paramwise_cfg.get('num_layers')
        if num_layers is not None and (
            isinstance(num_layers, bool) or not isinstance(num_layers, int)
        ):
            raise ValueError(f'num_layers in paramwise_cfg must be an integer, got {num_layers!r}')
        self.decay_rate = float(decay_rate)
        self.num_layers = num_layers

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Append the parameter groups of ``module``.

        Args:
            params: Groups so far; appended to in place.
            module: The whole model on the first call, a part of it in the recursion.
            prefix: Name of ``module`` within the model, empty for the model itself.
            is_dcn_module: As in the default constructor.
        """
        if prefix:  # the default constructor descends through this method
            super().add_params(params, module, prefix, is_dcn_module)
            return
        backbones = find_backbones(module)
        if not backbones:
            raise ValueError(
                f'{type(module).__name__} has no module with get_layer_depth(param_name, prefix), '
                'so the depth of its parameters is unknown: give the backbone that method, or use '
                "constructor='DefaultOptimWrapperConstructor' without decay_rate"
            )
        groups: list[dict] = []
        with _without_option_lines():
            super().add_params(groups, module, prefix, is_dcn_module)
        _check_complete(groups, module)

        names = {id(param): name for name, param in module.named_parameters()}
        merged: list[dict] = []
        for group in groups:
            scale = self._scale(names[id(group['params'][0])], backbones)
            if self.base_lr is not None:
                group['lr'] = group.get('lr', self.base_lr) * scale
            _merge(merged, group)
        print_log(self._summary(merged, backbones), logger='current')
        params.extend(merged)

    def _scale(self, name: str, backbones: dict[str, nn.Module]) -> float:
        for prefix, backbone in backbones.items():
            if name.startswith(prefix):
                depth, num_layers = backbone.get_layer_depth(name, prefix)
                if not 0 <= depth < num_layers:
                    raise ValueError(
                        f'{type(backbone).__name__}.get_layer_depth puts {name} at depth {depth} '
                        f'of {num_layers} layers; expected 0 to {num_layers - 1}'
                    )
                distance = num_layers - 1 - depth
                if distance > _LAST_STAGE:
                    distance += self._layers_to_add(num_layers, backbone)
                return self.decay_rate**distance
        return 1.0

    def _layers_to_add(self, num_depths: int, backbone: nn.Module) -> int:
        own = num_depths - 2  # what recipes count: neither the stem nor what follows the last stage
        if self.num_layers is None:
            return 0
        if self.num_layers < own:
            raise ValueError(
                f'num_layers={self.num_layers} in paramwise_cfg is less than the {own} layers of '
                f'the {type(backbone).__name__}: leave it out, or give at least {own}'
            )
        return self.num_layers - own

    def _summary(self, groups: list[dict], backbones: dict[str, nn.Module]) -> str:
        where = ', '.join(prefix.rstrip('.') or 'the model' for prefix in backbones)
        lines = [f'parameter groups (layer-wise decay {self.decay_rate:g} in {where}):']
        defaults = {'lr': self.base_lr, 'weight_decay': self.base_wd}
        for group in groups:
            settings = ', '.join(
                f'{key} {value:.4g}' if isinstance(value, float) else f'{key} {value}'
                for key, value in {**defaults, **_settings(group)}.items()
            )
            values = sum(param.numel() for param in group['params'])
            lines.append(f'  {settings}: {len(group["params"])} tensors, {values} values')
        return '\n'.join(lines)


def find_backbones(model: nn.Module) -> dict[str, nn.Module]:
    """Outermost modules that have ``get_layer_depth``.

    Returns:
        Prefix of the parameter names (``'backbone.'``, or ``''`` for the model itself) -> module.
    """
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if callable(getattr(module, 'get_layer_depth', None)) and not any(
            f'{name}.'.startswith(prefix) for prefix in found
        ):
            found[f'{name}.' if name else ''] = module
    return found


def _check_complete(groups: list[dict], model: nn.Module) -> None:
    count = Counter(id(param) for group in groups for param in group['params'])
    trainable = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    shared = [name for key, name in trainable.items() if count[key] > 1]
    if shared:
        raise ValueError(
            f'{", ".join(shared)}: shared by several modules; set bypass_duplicate=True in '
            'paramwise_cfg to give such a parameter to the first of them'
        )
    lost = [name for key, name in trainable.items() if not count[key]]
    if lost or len(count) != len(trainable):
        raise RuntimeError(
            f'{len(count)} parameters in groups, {len(trainable)} to train; lost: {lost}'
        )


def _settings(group: dict) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != 'params'}


def _merge(merged: list[dict], group: dict) -> None:
    for other in merged:
        if _settings(other) == _settings(group):
            other['params'].extend(group['params'])
            return
    merged.append(group)


@contextlib.contextmanager
def _without_option_lines() -> Iterator[None]:
    """Drops the default constructor's log line per parameter and option; groups are summarised."""

    def keep(record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith('paramwise_options -- ')

    logger = MMLogger.get_current_instance()
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
