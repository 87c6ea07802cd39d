"""Which checkpoint files exist to start from, for a config whose own one is not there."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from mmsw.component_name import component_name

_NAMES = {'tiny': 'SW-T', 'small': 'SW-S', 'base': 'SW-B', 'large': 'SW-L'}
_PRETRAINING = {  # arch, version, dense -> config below configs/pretrain
    ('tiny', 'v2', False): 'sw_t_in1k',
    ('tiny', 'v2', True): 'sw_t_dense_in1k',
    ('small', 'v2', False): 'sw_s_in1k',
    ('tiny', 'v1', False): 'sw_v1_t_in1k',
    ('small', 'v1', False): 'sw_v1_s_in1k',
}


def unpublished(cfg: Config, path: str) -> str | None:
    """What to say of a missing file that nobody has published.

    Args:
        cfg: A config with a shift-wise backbone.
        path: The file that the backbone is to start from.

    Returns:
        One or two sentences; ``None`` for a network whose checkpoint is published.
    """
    backbone = cfg.model.backbone
    if component_name(backbone.get('type')).endswith('SLaK'):
        return None
    arch, version = backbone.get('arch', 'tiny'), backbone.get('version', 'v2')
    dense = any(map(_prunes, cfg.get('custom_hooks') or ()))
    if (arch, version) == ('tiny', 'v2') and not dense:
        return None
    name, recipe = 'a network of this size', None
    if isinstance(arch, str) and arch in _NAMES:
        name = f'{_NAMES[arch]} {version}'
        recipe = _PRETRAINING.get((arch, version, dense))
    name += ' without pruning' if dense else ''
    recipe = (
        f'configs/pretrain/{recipe}.py' if recipe else 'a config like those in configs/pretrain'
    )
    return (
        f'checkpoint file {path} does not exist (working folder: {Path.cwd()}). Nobody has '
        f'published one of {name}; the only published file is that of SW-T v2, 30% pruned '
        f'(docs/recipes.md, "The published checkpoint"). Train one with {recipe} and name it with '
        '--pretrained, or start without any, with --from-scratch'
    )


def _prunes(hook: object) -> bool:
    """Whether a hook makes a dense network sparse."""
    if not isinstance(hook, dict) or component_name(hook.get('type')) != 'DynamicSparsityHook':
        return False
    return hook.get('start', 'snip') != 'from_checkpoint'
