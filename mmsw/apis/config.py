"""Reading config files and adapting them to what a user asked for."""

from __future__ import annotations

import copy
import importlib
import os
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.config.utils import ConfigParsingError
from mmengine.device import get_device

from mmsw.checkpoint import check_address, load_checkpoint_file
from mmsw.checkpoint.handed_over import start_from
from mmsw.component_name import component_name
from mmsw.errors import CheckpointError, UsageError
from mmsw.install_hint import how_to_install
from mmsw.wording import short

from . import own_data
from .checks.options import warn_of_unread
from .data_root import set_data_root
from .named_configs import config_path
from .options import take_one_word_options
from .plain_config import has_classes, in_names, scope_of_classes, unreadable
from .unpublished import unpublished

# default scope -> the package that has it, and the extra of mmsw that brings it
_TOOLBOXES = {
    'mmseg': ('mmsegmentation', 'openmmlab'),
    'mmdet': ('mmdet', 'openmmlab'),
    'mmpretrain': ('mmpretrain', 'pretrain'),
    'mmengine': ('mmengine', 'openmmlab'),
}
_OF_THE_EXTRA = ('mmcv', 'mmdet', 'mmengine', 'mmseg')
_SCOPED = re.compile(r'(mmseg|mmdet|mmpretrain)[.:]')  # what names a component of a toolbox
_AMP_DEVICES = ('cuda', 'npu', 'mlu', 'musa')


def load_config(
    config: str | os.PathLike[str] | Config,
    cfg_options: dict[str, Any] | None = None,
    data_root: str | os.PathLike[str] | None = None,
) -> Config:
    """Read a config and apply changes to it.

    Args:
        config: Path of a config file, the name of one of this package, or a config, which is
            copied.
        cfg_options: Dotted key -> value, as from ``--cfg-options``. ``data_root`` among them means
            the same as the argument, since replacing the variable alone would change nothing.
            ``crop_size``, ``batch_size``, ``max_iters`` and ``max_epochs`` reach every place of
            the config where they matter, see :mod:`mmsw.apis.options`.
        data_root: Folder of the data set, see :func:`mmsw.apis.set_data_root`.

    A config with an ``own_data`` dict is filled in from it, after the options that are meant for it
    and before the others, see :func:`mmsw.apis.own_data.fill_in`.

    Returns:
        The config.

    Raises:
        UsageError: If the file is missing or cannot be read, or a change does not apply to it.
    """
    cfg = copy.deepcopy(config) if isinstance(config, Config) else _read(Path(config))
    options = dict(cfg_options or {})
    cfg = _in_names(cfg, options.get('default_scope'))
    if own_data.has_own_data(cfg):
        options = own_data.apply_options(cfg, options, data_root)
        own_data.fill_in(cfg)
    else:
        own_data.refuse_options(cfg, options)
        root = options.pop('data_root', None)
        if data_root is not None or root is not None:
            set_data_root(cfg, root if data_root is None else data_root)
    take_one_word_options(cfg, options)  # of own data those that are left: train_cfg.max_iters
    warn_of_unread(cfg, options)
    try:
        cfg.merge_from_dict(options)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f'config options {options} do not fit {config_name(cfg)}: {error}'
        ) from error
    return cfg


def unfilled_config(path: str | os.PathLike[str]) -> Config:
    """A config as its files say, before own data and options change it.

    Args:
        path: Of a config file, or the name of one of this package.

    Raises:
        UsageError: If the file is missing or cannot be read.
    """
    return _read(Path(path))


def _in_names(cfg: Config, scope: str | None) -> Config:
    """A config without classes, see :mod:`mmsw.apis.plain_config`; one in text stays as it is."""
    if not has_classes(cfg):
        return cfg
    try:
        scope = scope or cfg.get('default_scope') or _scope_of(cfg)
        if scope not in _TOOLBOXES:
            return cfg
        if scope != 'mmengine':
            _register(scope, f'{config_name(cfg)} is for')
        return in_names(cfg, scope)
    except ImportError as error:
        # mmengine says where a module lacks something, which nothing that is installed would mend
        problem = _missing(error) if error.name or error.__context__ else error
        raise UsageError(f'{config_name(cfg)} cannot be used: {problem}') from error


def _scope_of(cfg: Config) -> str | None:
    return scope_of_classes(cfg, _TOOLBOXES.keys() - {'mmengine'}, config_name(cfg))


def _read(path: Path) -> Config:
    path = config_path(path)
    if path.is_dir():
        raise UsageError(f'config file {path} is a folder (working folder: {Path.cwd()})')
    try:
        return Config.fromfile(path)
    except (OSError, SyntaxError, ConfigParsingError) as error:
        raise UsageError(f'config file {path} cannot be read: {error}') from error
    except ImportError as error:  # of what it inherits, or what it imports
        raise UsageError(f'config file {path} cannot be read: {_missing(error)}') from error
    except RuntimeError as error:  # torchvision of another torch; what mmengine cannot read
        problem = _missing(error) if 'torchvision' in str(error) else unreadable(error, path)
        if problem is None:
            raise
        raise UsageError(f'config file {path} cannot be read: {problem}') from error


def _missing(error: Exception) -> str:
    """What could not be imported, and how to get it."""
    first, texts = error, [str(error)]
    while isinstance(first.__context__, (ImportError, RuntimeError)):  # mmengine wraps them
        first = first.__context__
        texts.append(str(first))
    if getattr(first, 'name', None) == 'pkg_resources':
        return f"{first}; mmengine needs it here: pip install 'setuptools<81'"
    if any('mmpretrain' in text or 'torchvision' in text for text in texts):
        return f'{short(first)}; to get mmpretrain, {_remedy("pretrain")}'
    module = getattr(first, 'name', None)
    package = module and module.partition('.')[0]
    if module and (package not in _OF_THE_EXTRA or (module != package and find_spec(package))):
        return str(error)  # a module of others, or one that this release does not have
    return f'{first}; to get the toolboxes, {_remedy("openmmlab")}'


def _remedy(extra: str) -> str:
    text = how_to_install(extra)
    if extra == 'pretrain':
        text += (
            ', in an environment of its own, with torch and torchvision of one release '
            '(docs/pretraining.md)'
        )
    return text


def config_name(cfg: Config) -> str:
    """The file of a config for messages, or words for one that has none."""
    return str(cfg.filename or 'the config')


def register_toolbox(cfg: Config) -> str:
    """Register the components of the toolbox that the config is for, which ``default_scope`` names.

    Those of other toolboxes that it names (``type='mmpretrain.ConvNeXt'``) as well.

    Returns:
        The scope: ``'mmseg'``, ``'mmdet'``, ``'mmpretrain'``, or ``'mmengine'`` for a config that
        needs no toolbox.

    Raises:
        UsageError: If the scope is another one, or a toolbox is not installed or does not work.
    """
    scope = cfg.get('default_scope')
    if scope not in _TOOLBOXES:
        raise UsageError(
            f'{config_name(cfg)} has default_scope={scope!r}; expected one of {list(_TOOLBOXES)}, '
            'which says which toolbox the config is for'
        )
    if scope != 'mmengine':
        _register(scope, f'{config_name(cfg)} is for')
    for other, component in _foreign_components(dict(cfg.items()), scope).items():
        _register(other, f'{config_name(cfg)} names {component!r} of')
    return scope


def _register(scope: str, whose: str) -> None:
    package, extra = _TOOLBOXES[scope]
    try:
        utils = importlib.import_module(f'{scope}.utils')
        utils.register_all_modules(init_default_scope=False)
    # a missing package, a version that the toolbox refuses, torchvision of another torch
    except (ImportError, AssertionError, RuntimeError) as error:
        problem = short(error)
        if 'torchvision' in problem and scope != 'mmpretrain':
            remedy = 'install torchvision of the release of torch, or remove it'
        else:
            remedy = _remedy(extra)
        raise UsageError(
            f'{whose} {package}, which cannot be imported ({problem}): {remedy}'
        ) from error


def _foreign_components(value: Any, scope: str) -> dict[str, str]:
    """Other toolboxes whose components a config names, each with the first of these."""
    found: dict[str, str] = {}
    if isinstance(value, dict):
        kind = value.get('type')
        match = _SCOPED.match(kind) if isinstance(kind, str) else None
        if match and match[1] != scope:
            found[match[1]] = kind
    items = value.values() if isinstance(value, dict) else value
    for item in items:
        if isinstance(item, (dict, list, tuple)):
            found = {**_foreign_components(item, scope), **found}
    return found


def set_pretrained(cfg: Config, pretrained: str | os.PathLike[str] | bool) -> None:
    """Name the file that the backbone starts from; ``False`` for none."""
    backbone = cfg.model.get('backbone')
    if backbone is None:
        raise UsageError(
            f'the model of {config_name(cfg)} has no backbone to give pretrained weights to'
        )
    if pretrained is True:
        raise UsageError('pretrained must be a path, or False to train from scratch')
    _drop_handed_over(cfg.model)
    if pretrained is False:
        backbone.init_cfg = None
    else:
        given = backbone.get('init_cfg')
        kept = ('input_weights',) if isinstance(given, dict) else ()  # of the network, not the file
        backbone.init_cfg = dict(
            type='Pretrained',
            checkpoint=os.fspath(pretrained),
            **{key: given[key] for key in kept if key in given},
        )


def drop_pretrained(cfg: Config) -> str | None:
    """Let the backbone start from no file, since the whole model starts from one.

    Returns:
        The file that the backbone would have started from.
    """
    handed_over = forget_handed_over(cfg.model)
    init_cfg = (cfg.model.get('backbone') or {}).get('init_cfg')
    if isinstance(init_cfg, dict) and component_name(init_cfg.get('type')) == 'Pretrained':
        cfg.model.backbone.init_cfg = None
        return str(init_cfg.get('checkpoint'))
    return handed_over


def forget_handed_over(model: dict) -> str | None:
    """Let a shift-wise backbone start from nothing that a segmentor of mmseg hands over.

    Others stay as they are: ``pretrained`` may say more to them than where weights are.

    Args:
        model: Part of a config, which is changed.

    Returns:
        What was to be handed over.
    """
    return _drop_handed_over(model) if _is_shift_wise(model) else None


def _drop_handed_over(model: dict) -> str | None:
    dropped = None
    for part in (model, model.get('backbone') or {}):
        if isinstance(part.get('pretrained'), (str, os.PathLike)):
            dropped, part['pretrained'] = os.fspath(part['pretrained']), None
    return dropped


def _is_shift_wise(model: dict) -> bool:
    backbone = model.get('backbone')
    own = ('ShiftWiseNet', 'SLaK')
    return isinstance(backbone, dict) and component_name(backbone.get('type')).endswith(own)


def check_pretrained(cfg: Config) -> None:
    """Raise the loader's own error now if a local file that the model is to start from is missing.

    The same for an address that a shift-wise backbone cannot read. Other parts of the model read
    their files with mmengine, which knows more kinds of addresses.

    Raises:
        mmsw.checkpoint.CheckpointError: If there is such a file or address.
    """
    backbone = cfg.model.get('backbone') or {}
    files = list(_pretrained_files(cfg.model))
    if _is_shift_wise(cfg.model):
        for part in (cfg.model, backbone):
            if part.get('pretrained') is not None:  # the network takes it as init_cfg
                handed_over = start_from(part['pretrained'], backbone.get('init_cfg'))
                files.append(handed_over['checkpoint'])
        for path in _pretrained_files(backbone):
            if '://' in path:
                check_address(path)
    for path in files:
        if '://' not in path and not Path(path).is_file():
            other = unpublished(cfg, path) if _is_shift_wise(cfg.model) else None
            if other:
                raise CheckpointError(other)
            load_checkpoint_file(path)


def _pretrained_files(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if component_name(value.get('type')) == 'Pretrained' and 'checkpoint' in value:
            yield str(value['checkpoint'])
        for item in value.values():
            yield from _pretrained_files(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _pretrained_files(item)


def enable_amp(cfg: Config, needs_device: bool = True) -> None:
    """Train in mixed precision, on a GPU, which must be there if ``needs_device``."""
    if needs_device and get_device() not in _AMP_DEVICES:
        raise UsageError('mixed precision (--amp) needs a GPU, and none is visible; leave it out')
    kind = component_name(cfg.optim_wrapper.get('type', 'OptimWrapper'))
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UsageError(f'mixed precision (--amp) does not go with optim_wrapper.type={kind!r}')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def enable_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate by the total batch size over the one it was chosen for."""
    if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
        raise UsageError(
            f'{config_name(cfg)} does not say which total batch size its learning rate is for: add '
            'auto_scale_lr=dict(base_batch_size=...)'
        )
    cfg.auto_scale_lr.enable = True
