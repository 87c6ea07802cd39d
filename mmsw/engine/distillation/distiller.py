"""One model learning from another: their maps, compared in every forward pass of the training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmsw.errors import UsageError

from .distances import resized
from .layer_outputs import LayerOutputs, LeftBehind
from .teacher import Teacher
from .terms import LOGITS, Term


class Distiller:
    """Adds terms to the losses that a model gives while it trains.

    The student keeps nothing of it: no module, no parameter, no buffer, and its copies have no part
    in it. :meth:`end` takes the hooks away.

    Args:
        student: The model that trains, without wrappers.
        teacher: What it learns from.
        terms: The losses.
    """

    def __init__(self, student: nn.Module, teacher: Teacher, terms: Sequence[Term]) -> None:
        self.teacher = teacher
        self.terms = terms
        self._align_corners = bool(getattr(student, 'align_corners', False))
        self._wanted = list(dict.fromkeys(name for term in terms for name in term.layers.values()))
        self._students = LayerOutputs(
            student, [name for term in terms for name in term.layers], 'student'
        )
        self._teachers = LayerOutputs(teacher.model, self._wanted, 'teacher')
        self._handles = [
            student.register_forward_pre_hook(LeftBehind(self._begin), with_kwargs=True),
            student.register_forward_hook(LeftBehind(self._add), with_kwargs=True),
        ]

    def end(self) -> None:
        """Take every hook away."""
        for handle in (*self._handles, self._students, self._teachers):
            handle.remove()

    def _begin(self, student: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if student.training and kwargs.get('mode') == 'loss':
            self._students.start()

    def _add(
        self, student: nn.Module, args: tuple, kwargs: dict[str, Any], losses: dict[str, Tensor]
    ) -> dict[str, Tensor] | None:
        if not self._students.started:
            return None
        mine = self._students.stop()
        self._teachers.start()
        self.teacher.look(args[0] if args else kwargs['inputs'], self._wanted)
        theirs = self._teachers.stop()
        return {**losses, **{term.name: self._loss(term, mine, theirs) for term in self.terms}}

    def _loss(
        self, term: Term, mine: dict[str, list[Tensor]], theirs: dict[str, list[Tensor]]
    ) -> Tensor:
        """Mean distance over all maps of a term, weighted."""
        distances = []
        for layer, counterpart in term.layers.items():
            pairs = _paired(layer, mine.get(layer, []), counterpart, theirs.get(counterpart, []))
            align_corners = self._align_corners and layer == LOGITS
            for own, other in pairs:
                _check_pair(layer, own, counterpart, other, trains=term.weight > 0)
                other = resized(other, tuple(own.shape[2:]), align_corners)
                distances.append(term.distance(own if term.weight else own.detach(), other))
        return term.weight * torch.stack(distances).mean()


def _paired(
    layer: str, own: list[Tensor], counterpart: str, others: list[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    for whose, name, maps in (('student', layer, own), ('teacher', counterpart, others)):
        if not maps:
            raise UsageError(
                f'DistillationHook: layer {name} of the {whose} takes no part in the forward pass; '
                'name one that does, such as backbone or neck'
            )
    if len(own) != len(others):
        raise UsageError(
            f'DistillationHook: layer {layer} of the student gives {len(own)} maps, layer '
            f'{counterpart} of the teacher {len(others)}; name layers that give as many'
        )
    return list(zip(own, others, strict=True))


def _check_pair(layer: str, own: Tensor, counterpart: str, other: Tensor, trains: bool) -> None:
    if own.shape[1] != other.shape[1]:
        raise UsageError(
            f'DistillationHook: layer {layer} of the student has {own.shape[1]} channels, layer '
            f'{counterpart} of the teacher {other.shape[1]}; name layers of the same width'
        )
    if trains and torch.is_grad_enabled() and not own.requires_grad:
        raise UsageError(
            f'DistillationHook: no gradient flows through layer {layer} of the student: it is '
            'frozen, or inside of a block that gradient checkpointing computes again; name a layer '
            'behind it'
        )
