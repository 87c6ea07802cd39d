"""The network that is learned from: read once, frozen, and shown to see what the student sees."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from mmsw.checkpoint import (
    check_masks_placed,
    fetched_once,
    only_data_is_read,
    read_checkpoint,
)
from mmsw.checkpoint.trained import (
    check_complete,
    existing_file,
    fill,
    state_dict_of,
    take_form,
)
from mmsw.component_name import names_of_bases
from mmsw.errors import CheckpointError, MmswError, UsageError
from mmsw.random_state import preserved_random_state
from mmsw.wording import listed, short

from ..image_channels import swaps_channels
from .terms import LOGITS

_FEATURES = ('backbone', 'neck')  # the parts of a model that extract_feat runs
_REFUSALS = (AssertionError, AttributeError, ImportError, KeyError, TypeError, ValueError)


class Teacher:
    """A trained model that is only asked.

    It is in evaluation mode, needs no gradient and is part of no other module. Reading it leaves
    the random generators as they were.

    Args:
        config: Config file of its training.
        checkpoint: What that training saved, or its address.
        scope: Default scope of the student's run.
        device: Where it works.

    Attributes:
        model: The model.
        classes: Names of its classes as the checkpoint has them; ``None`` where it has none.

    Raises:
        UsageError: If a file is missing, or the config is for another toolbox or cannot be built.
        CheckpointError: If the checkpoint is damaged, does not fill the model, or has weights that
            are not finite.
    """

    def __init__(self, config: str, checkpoint: str, scope: str, device: torch.device) -> None:
        cfg = _read_config(existing_file(config, 'config of the teacher'))
        checkpoint = existing_file(checkpoint, 'checkpoint of the teacher')
        own = cfg.get('default_scope') or scope
        if own != scope:
            raise UsageError(
                f'the teacher {config} is a model of {own}, the student one of {scope}; they must '
                'be of one toolbox'
            )
        with preserved_random_state(), DefaultScope.overwrite_default_scope(scope):
            model = _build(cfg, config)
        with fetched_once():
            saved = read_checkpoint(checkpoint)
        state = state_dict_of(saved)
        take_form(model, state, checkpoint)
        check_complete(state, model, checkpoint)
        check_masks_placed(state, model, checkpoint, trains=False)
        fill(model, state, checkpoint)
        _check_finite(model, checkpoint)
        self.model = model.to(device).eval().requires_grad_(False)
        self.classes = _classes(saved)

    @torch.no_grad()
    def look(self, inputs: Tensor, layers: Iterable[str]) -> None:
        """Run as far as layers need it.

        Args:
            inputs: Images as the student gets them, ``[N, 3, H, W]``.
            layers: Names of layers.
        """
        parts = {name.partition('.')[0] for name in layers}
        if parts <= set(_FEATURES) and hasattr(self.model, 'extract_feat'):
            self.model.extract_feat(inputs)
        else:
            self.model(inputs, mode='tensor')


def _read_config(path: str) -> Config:
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is a program
        raise UsageError(f'config of the teacher {path} cannot be read: {short(error)}') from error
    if not cfg.get('model'):
        raise UsageError(f'config of the teacher {path} has no model')
    if cfg.get('own_data'):
        raise UsageError(
            f'config of the teacher {path} is filled in when a training begins (own_data): name '
            'the config that its training wrote into its work folder, beside the checkpoint'
        )
    return cfg


def _build(cfg: Config, path: str) -> nn.Module:
    try:
        with only_data_is_read():
            return revert_sync_batchnorm(MODELS.build(cfg.model))
    except MmswError:
        raise
    except _REFUSALS as error:
        raise UsageError(f'the teacher of {path} cannot be built: {short(error)}') from error


def _check_finite(model: nn.Module, filename: str) -> None:
    broken = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    if broken:
        raise CheckpointError(
            f'{filename} has weights that are NaN or infinite ({listed(broken)}): its training '
            'diverged, and every loss against it would be NaN. Take an earlier checkpoint'
        )


def _classes(saved: Any) -> tuple[str, ...] | None:
    meta = saved.get('meta') if isinstance(saved, dict) else None
    classes = ((meta or {}).get('dataset_meta') or {}).get('classes')
    return None if classes is None else tuple(classes)


def check_same_input(student: nn.Module, teacher: nn.Module) -> None:
    """Make sure that images prepared for the student are right for the teacher.

    Raises:
        UsageError: If the two normalise or order the channels differently.
    """
    of_student, of_teacher = _input_settings(student), _input_settings(teacher)
    differences = [
        f'{name} {of_teacher[name]} instead of {of_student[name]}'
        for name in of_student
        if of_teacher[name] != of_student[name]
    ]
    if differences:
        raise UsageError(
            f'the teacher was trained on other input than the student sees: '
            f'{"; ".join(differences)} in its data_preprocessor. Give the student the '
            "data_preprocessor of the teacher's config, or take another teacher"
        )


def _input_settings(model: nn.Module) -> dict[str, Any]:
    preprocessor = getattr(model, 'data_preprocessor', None)
    settings: dict[str, Any] = {}
    for name in ('mean', 'std'):
        value = getattr(preprocessor, name, None)
        settings[name] = (
            [round(number, 4) for number in value.flatten().tolist()]
            if isinstance(value, Tensor)
            else None
        )
    to_rgb = getattr(preprocessor, 'to_rgb', False)  # of mmpretrain
    settings['BGR to RGB'] = swaps_channels(preprocessor) or bool(to_rgb)
    return settings


def check_same_classes(student: nn.Module, teacher: Teacher, classes: Iterable[str] | None) -> None:
    """Make sure that the logits of two segmentors mean the same classes.

    Args:
        student: The model that learns.
        teacher: The one that it learns from.
        classes: Names of the student's classes; ``None`` where they are not known.

    Raises:
        UsageError: If one has no such logits, or the classes differ.
    """
    for whose, model in (('student', student), ('teacher', teacher.model)):
        if not hasattr(getattr(model, 'decode_head', None), 'conv_seg'):
            raise UsageError(
                f'DistillationHook: the {whose} is a {type(model).__name__} without a layer '
                f'{LOGITS}, which gives the logits of a segmentor: leave logits out, and name '
                'features'
            )
    mine, theirs = (model.decode_head.conv_seg.out_channels for model in (student, teacher.model))
    if mine != theirs:
        raise UsageError(
            f'the teacher has logits of {theirs} classes, the student of {mine}: take a teacher '
            'of the same classes, or leave logits out and name features'
        )
    if classes is None or teacher.classes is None or tuple(classes) == teacher.classes:
        return
    raise UsageError(
        f'the classes of the teacher are {listed(teacher.classes)}, those of the student '
        f'{listed(tuple(classes))}: names and order must agree, or leave logits out and name '
        'features'
    )


def check_layers(model: nn.Module, names: Iterable[str], whose: str) -> None:
    """Make sure that a model has layers, and that its teacher's side can be run.

    Raises:
        UsageError: If it has not; the message names what there is.
    """
    known = dict(model.named_modules())
    is_detector = 'BaseDetector' in names_of_bases(model)
    for name in names:
        if not name or name not in known:
            raise UsageError(
                f'DistillationHook: the {whose} has no layer {name!r}; {_near(name, known)}'
            )
        if is_detector and name.partition('.')[0] not in _FEATURES:
            raise UsageError(
                f'DistillationHook: layer {name} of the {whose} is none of the '
                f'{" or the ".join(_FEATURES)}. The heads of two detectors look at other boxes; '
                'name layers in front of them'
            )


def _near(name: str, known: dict[str, nn.Module]) -> str:
    """What there is where a name points to."""
    close = get_close_matches(name, known, n=3)
    parent = name
    while parent not in known:
        parent = parent.rpartition('.')[0]
    children = [child for child, _ in known[parent].named_children()]
    inside = f'{parent or "the model"} has {listed(children, 12)}'
    return f'{inside}; did you mean {listed(close)}?' if close else inside
