"""Whether a step takes as many images as the learning rate was chosen for."""

from __future__ import annotations

from collections.abc import Mapping

from mmengine.config import Config

from mmsw.component_name import component_name

_DYNAMIC = 'DynamicSparsityHook'


def total_batch_warning(cfg: Config, processes: int) -> str | None:
    """What to say if a step takes another number of images than the learning rate is for.

    Args:
        cfg: A training config.
        processes: That train together.

    Returns:
        One sentence with the numbers and the options that mend it; ``None`` if the numbers agree,
        if the learning rate is scaled, or if the config does not say what it is for.
    """
    scaling = cfg.get('auto_scale_lr') or {}
    wanted = scaling.get('base_batch_size')
    size = (cfg.get('train_dataloader') or {}).get('batch_size')
    if not (wanted and size) or scaling.get('enable'):
        return None
    counts = accumulated(cfg)
    total = processes * size * counts
    if total == wanted:
        return None
    cures = _cures(cfg, processes, size, counts, wanted)
    cure = f'set --cfg-options {" or ".join(cures)}, or scale' if cures else 'scale'
    return (
        f'a step takes {total} images (processes {processes}, batch_size {size}, '
        f'accumulative_counts {counts}), but the learning rate is for {wanted} '
        f'(auto_scale_lr.base_batch_size): {cure} the learning rate with --auto-scale-lr'
    )


def accumulated(cfg: Config | Mapping) -> int:
    """Iterations whose gradients make one step; of several optimizers that of none is known."""
    return (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)


def _cures(cfg: Config, processes: int, size: int, counts: int, wanted: int) -> list[str]:
    cures = []
    if wanted % (processes * counts) == 0:
        cures.append(f'train_dataloader.batch_size={wanted // (processes * counts)}')
    loop = cfg.get('train_cfg') or {}
    in_epochs = loop.get('by_epoch') or component_name(loop.get('type')) == 'EpochBasedTrainLoop'
    # By iterations a run would see fewer images: mmengine counts them, not the steps.
    if in_epochs and wanted % (processes * size) == 0:
        needed = wanted // (processes * size)
        cures.append(f'optim_wrapper.accumulative_counts={needed}{_interval(cfg, needed, counts)}')
    return cures


def _interval(cfg: Config, needed: int, counts: int) -> str:
    """The option that keeps the steps between two exchanges of filters, which count iterations."""
    for index, hook in enumerate(cfg.get('custom_hooks') or ()):
        kind = hook.get('type') if isinstance(hook, dict) else type(hook)
        if component_name(kind) == _DYNAMIC and isinstance(hook, dict):
            interval = hook.get('interval', 100) * needed // counts
            return f' custom_hooks.{index}.interval={interval}'
    return ''
