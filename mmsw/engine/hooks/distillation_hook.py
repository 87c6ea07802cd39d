"""Distillation in mmengine's runner: a network learns from a trained one beside its labels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from mmsw.errors import UsageError
from mmsw.registration import register

from ..distillation.distiller import Distiller
from ..distillation.teacher import Teacher, check_layers, check_same_classes, check_same_input
from ..distillation.terms import LOGITS, Term, features_term, logits_term
from ..model_wrapper import unwrapped
from ..runner_parts import is_training


@register(HOOKS)
class DistillationHook(Hook):
    """Add losses against a trained network, the teacher, to those of the network that trains.

    The losses are ``loss_distill_logits`` and ``loss_distill_features``; the log shows them beside
    the others. The teacher sees the very batch that the student sees, prepared and padded for it.
    It is read once, before the training; it is frozen, in evaluation mode, on the device of the
    student, and in no checkpoint, optimizer or averaged model. A resumed run reads it again.

    Logits are what ``decode_head.conv_seg`` of a segmentor gives. Their loss is the divergence
    (Kullback-Leibler) of the teacher's softened probabilities from the student's: of each class
    over the pixels (channel-wise distillation, arXiv 2011.13256), or of each pixel over the classes
    (arXiv 1503.02531). Features are the maps that layers of segmentors and detectors give. Their
    loss is one minus the correlation of two maps, channel by channel (arXiv 2207.02039), the mean
    over all maps. Maps of the teacher that have another height or width are resized to those of the
    student. Padding counts as image.

    Nothing happens in a run that only validates or tests.

    Args:
        teacher: ``config``, the config file of its training, and ``checkpoint``, the file that this
            training saved.
        logits: ``weight`` (default: 3), ``temperature`` (4) and ``over``: ``'space'`` for
            channel-wise distillation (the default) or ``'classes'`` for the one pixel by pixel.
            ``None``: no loss on logits.
        features: Names of layers that both networks have; or a dict of ``layers``, which are names
            or a dict of names in the student -> names in the teacher, and of ``weight`` (1).
            ``None``: no loss on features.

    With a weight of 0 the teacher runs, and no bit of the training changes.

    Raises:
        UsageError: If an argument makes no sense.
    """

    priority = 'LOW'

    def __init__(
        self,
        teacher: Mapping[str, Any],
        logits: Mapping[str, Any] | None = None,
        features: Mapping[str, Any] | Sequence[str] | None = None,
    ) -> None:
        if not isinstance(teacher, Mapping) or set(teacher) != {'config', 'checkpoint'}:
            raise UsageError(
                'DistillationHook: teacher must be dict(config=FILE, checkpoint=FILE), got '
                f'{teacher!r}'
            )
        self._files = {name: os.fspath(path) for name, path in teacher.items()}
        self._terms: list[Term] = []
        if logits is not None:
            self._terms.append(logits_term(logits))
        if features is not None:
            self._terms.append(features_term(features))
        if not self._terms:
            raise UsageError(
                'DistillationHook: nothing is distilled: give logits (dict() for the defaults), '
                'features, or both'
            )

    def before_run(self, runner: Runner) -> None:
        """Read the teacher, and see that it fits.

        Raises:
            UsageError: If it does not: a file is missing, it sees other input or has other classes,
                or a layer does not exist.
            CheckpointError: If its checkpoint is damaged or of another network.
        """
        if not is_training(runner):
            return
        if sum(isinstance(hook, DistillationHook) for hook in runner.hooks) > 1:
            raise UsageError(
                'custom_hooks has more than one DistillationHook, whose losses have the same '
                'names: leave one, which can compare any number of layers'
            )
        student = unwrapped(runner.model)
        device = next(student.parameters()).device
        teacher = Teacher(**self._files, scope=runner.default_scope.scope_name, device=device)
        check_same_input(student, teacher.model)
        for term in self._terms:
            if LOGITS in term.layers:
                check_same_classes(student, teacher, _classes(runner))
            check_layers(student, term.layers, 'student')
            check_layers(teacher.model, term.layers.values(), 'teacher')
        self.teacher = teacher

    def before_train(self, runner: Runner) -> None:
        """Let the losses of the student have those against the teacher from here on."""
        self._distiller = Distiller(unwrapped(runner.model), self.teacher, self._terms)
        size = _num_parameters(self.teacher.model) / 1e6
        terms = ', '.join(f'{term.name} with weight {term.weight:g}' for term in self._terms)
        runner.logger.info(
            f'Distillation from {self._files["checkpoint"]} ({size:.1f} M parameters, frozen): '
            f'{terms}.'
        )

    def after_train(self, runner: Runner) -> None:
        """Leave the student as it would be without."""
        self._distiller.end()


def _classes(runner: Runner) -> Sequence[str] | None:
    meta = getattr(runner.train_dataloader.dataset, 'metainfo', None) or {}
    return meta.get('classes')


def _num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
