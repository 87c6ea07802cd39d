"""The checkpoints that runs start from: given ones, or a short pretraining on the demo scenes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config
from torch import nn

import mmsw
from mmsw.analysis.sparsity import read_any_network
from mmsw.apis.backbone import build_backbone
from mmsw.apis.config import check_pretrained
from mmsw.checkpoint import load_checkpoint_file, load_pretrained
from mmsw.demo.pretraining import make_demo_checkpoint, pretraining_iterations, recipe_files
from mmsw.errors import UsageError
from mmsw.sparsity import report
from mmsw.whole_file import write_whole

from ..digests import (
    content_digest,
    digest,
    file_digest,
    network_digest,
    package_versions,
    source_digest,
)
from .networks import Network
from .one_shot import prune_start, pruning_files
from .plan import AS_CONFIGURED, CHECKPOINTS, LONGER, RANDOM, TransferSettings

_SEED = 0  # of the pretraining; all runs share it


def find_starts(
    networks: list[Network], settings: TransferSettings
) -> dict[tuple[str, str], tuple[Path, str]]:
    """Where the checkpoints of all starts lie, whether they have to be made yet or not.

    Args:
        networks: The networks.
        settings: What was asked for.

    Returns:
        ``(network name, 'dense' or 'sparse')`` -> file and what identifies its contents. A start
        that makes no sense for a network, beside others that it makes sense for, is left out.

    Raises:
        UsageError: If a checkpoint is not named and cannot be made, or does not fit.
        mmsw.checkpoint.CheckpointError: If a named one is missing, damaged or of another network.
    """
    _check_names(networks, settings)
    kinds = list(dict.fromkeys(CHECKPOINTS[s] for s in settings.starts if s in CHECKPOINTS))
    found: dict[tuple[str, str], tuple[Path, str]] = {}
    for kind in kinds:
        for network in networks:
            path = _given(network, kind, settings)
            if path is not None:
                _check_given(network, kind, path)
                found[network.name, kind] = (path, file_digest(path))
            elif kind == 'sparse' and not network.is_shiftwise and _has_dense(network, settings):
                found[network.name, kind] = pruned_start(network, settings)
            elif network.is_demo:
                found[network.name, kind] = _own_start(network, kind, settings)
            elif network.is_shiftwise:
                raise UsageError(
                    f'{network.name} is no config of the demo scenes, so the start {kind!r} needs '
                    f'a checkpoint: name it with --pretrained-{kind} PATH, or leave the start out '
                    'of --starts'
                )
    for network in networks:
        if AS_CONFIGURED in settings.starts:
            check_pretrained(network.cfg)
        if {*RANDOM, AS_CONFIGURED} & set(settings.starts):
            continue
        if any((network.name, kind) in found for kind in kinds):
            continue
        raise UsageError(
            f'none of --starts {",".join(settings.starts)} makes sense for {network.name}: its '
            'backbone has no shift-wise layer, and no checkpoint is named with '
            f'--pretrained-dense {network.name}=PATH or --pretrained-sparse {network.name}=PATH; '
            'add scratch or config to --starts'
        )
    return found


def pretraining_lengths(
    networks: list[Network], settings: TransferSettings
) -> dict[str, int | None]:
    """How long the pretraining of each network is that a longer run from scratch stands beside.

    Args:
        networks: The networks.
        settings: What was asked for.

    Returns:
        Network name -> iterations; None where the demonstration's data are still to be made. Empty
        unless such runs were asked for.

    Raises:
        UsageError: See :func:`check_pretraining_lengths`.
    """
    if LONGER not in settings.starts:
        return {}
    if settings.pretrain_iters is not None:
        return {network.name: settings.pretrain_iters for network in networks}
    check_pretraining_lengths(networks, settings)
    folders = {network.name: network.data.parent for network in networks}
    counted = {  # demo configs share their data, and counting reads every image
        data: pretraining_iterations(data, settings.pretrain_epochs)
        for data in set(folders.values())
        if data.exists()
    }
    return {name: counted.get(data) for name, data in folders.items()}


def check_pretraining_lengths(networks: list[Network], settings: TransferSettings) -> None:
    """Make sure that it can be known how long the pretraining of each network is; reads no data.

    Raises:
        UsageError: If it cannot, since the checkpoints come from elsewhere.
    """
    if LONGER not in settings.starts or settings.pretrain_iters is not None:
        return
    for network in networks:
        if not network.is_demo or settings.pretrained:
            raise UsageError(
                f'the start {LONGER} of {network.name} trains for as many iterations as '
                'pretraining and fine-tuning together: say how many the pretraining had with '
                f'--pretrain-iters N, or leave {LONGER} out of --starts'
            )


def make_starts(
    networks: list[Network],
    settings: TransferSettings,
    starts: dict[tuple[str, str], tuple[Path, str]],
    progress: Callable[[str], None],
) -> None:
    """Pretrain what is not there yet; the dense and the sparse start by the same schedule.

    Args:
        networks: The networks.
        settings: What was asked for.
        starts: From :func:`find_starts`.
        progress: Called with a line of text now and then.
    """
    for (name, kind), (path, _) in starts.items():
        network = next(network for network in networks if network.name == name)
        if path.is_file():
            continue
        if kind == 'sparse' and not network.is_shiftwise:
            dense = _given(network, 'dense', settings) or _own_start(network, 'dense', settings)[0]
            if not dense.is_file():
                _pretrain(network, 'dense', settings, dense, progress)
            progress(f'pruning {settings.sparsity:.0%} of the weights of {dense}: {path}')
            prune_start(network, dense, path, settings.sparsity)
        else:
            _pretrain(network, kind, settings, path, progress)


def _pretrain(
    network: Network,
    kind: str,
    settings: TransferSettings,
    path: Path,
    progress: Callable[[str], None],
) -> None:
    progress(f'pretraining the {kind} start on the demo scenes: {path}')
    write_whole(
        path,
        lambda temporary: make_demo_checkpoint(
            network.data.parent,
            temporary,
            network.cfg,
            settings.sparsity if kind == 'sparse' else 0.0,
            _SEED,
            settings.pretrain_epochs,
            progress=lambda line: progress(f'  {line}'),
        ),
    )


def _given(network: Network, kind: str, settings: TransferSettings) -> Path | None:
    """The file that somebody named for a start; one without a network's name is shift-wise."""
    path = settings.pretrained.get((kind, network.name))
    if path is None and network.is_shiftwise:
        path = settings.pretrained.get((kind, ''))
    return path


def _own_start(network: Network, kind: str, settings: TransferSettings) -> tuple[Path, str]:
    """Where the pretraining on the demo scenes puts a start, and what identifies it."""
    identity = pretraining_digest(network, kind, settings)
    return settings.out / 'starts' / f'{kind}-{identity}.pth', identity


def _has_dense(network: Network, settings: TransferSettings) -> bool:
    """Whether there is a dense start that can be pruned."""
    return network.is_demo or _given(network, 'dense', settings) is not None


def pruned_start(network: Network, settings: TransferSettings) -> tuple[Path, str]:
    """Where the start lies that is pruned from the dense one, and what identifies it.

    Args:
        network: One without shift-wise layers.
        settings: What was asked for.
    """
    dense = _given(network, 'dense', settings)
    origin = _own_start(network, 'dense', settings)[1] if dense is None else file_digest(dense)
    identity = digest(
        dict(dense=origin, sparsity=settings.sparsity, source=source_digest(pruning_files()))
    )
    return settings.out / 'starts' / f'sparse-{identity}.pth', identity


def pretraining_digest(network: Network, kind: str, settings: TransferSettings) -> str:
    """What a pretraining depends on: backbone, normalisation, data, schedule, code, packages."""
    package = Path(mmsw.__file__).parent
    source = [
        package / 'apis/schedule.py',
        package / 'demo',
        package / 'engine',
        *recipe_files(),
    ]
    return digest(
        {
            'backbone': _backbone_settings(network.cfg),
            'normalisation': {
                key: value
                for key, value in (network.cfg.model.get('data_preprocessor') or {}).items()
                if key in ('mean', 'std', 'bgr_to_rgb')
            },
            'data': content_digest(network.data.parent / 'demo_data.json'),
            'sparsity': settings.sparsity if kind == 'sparse' else 0.0,
            'epochs': settings.pretrain_epochs,
            'seed': _SEED,
            'source': [network_digest(), source_digest(source)],
            'versions': package_versions(),
        }
    )


def _backbone_settings(cfg: Config) -> dict:
    settings = cfg.model.backbone.to_dict()
    settings.pop('init_cfg', None)
    return settings


def _check_names(networks: list[Network], settings: TransferSettings) -> None:
    known = [network.name for network in networks]
    for kind, name in settings.pretrained:
        if name and name not in known:
            raise UsageError(
                f'--pretrained-{kind} {name}=... names no network of this benchmark; they are '
                f'{", ".join(known)}'
            )


def _check_given(network: Network, kind: str, path: Path) -> None:
    contents = load_checkpoint_file(path)
    if not network.is_shiftwise:
        if kind == 'sparse' and not read_any_network(contents, str(path)).total.sparse:
            raise UsageError(f'{path} was named with --pretrained-sparse, but has no zeros')
        return
    backbone = build_backbone(network.cfg)
    load_pretrained(backbone, path)
    _check_kind(backbone, kind, path)


def _check_kind(backbone: nn.Module, kind: str, path: Path) -> None:
    density = report(backbone).total
    if density.is_sparse == (kind == 'sparse'):
        return
    other = 'dense' if kind == 'sparse' else 'sparse'
    raise UsageError(
        f'{path} was named with --pretrained-{kind}, but is {other}: it keeps {density} of its '
        'small kernels'
    )
