"""The classifier around the backbone, in the names of mmpretrain's ``ImageClassifier``."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mmsw.errors import CheckpointError

from .release import StateDict

_BACKBONE = 'backbone.'
# Published classifier, as mmsw.checkpoint names it -> in configs/pretrain
_HEAD = {
    'head.norm.weight': 'neck.norm.weight',
    'head.norm.bias': 'neck.norm.bias',
    'head.weight': 'head.fc.weight',
    'head.bias': 'head.fc.bias',
}


def to_classifier(state: Mapping[str, Tensor]) -> StateDict:
    """State dict of the models of ``configs/pretrain`` from that of a published network.

    Args:
        state: What :func:`mmsw.checkpoint.load_release_checkpoint` returned.

    Returns:
        The same tensors under the names of mmpretrain's ``ImageClassifier``.

    Raises:
        CheckpointError: If a part of the classifier is missing.
    """
    _check(state, _HEAD)
    return {_HEAD.get(key, f'{_BACKBONE}{key}'): tensor for key, tensor in state.items()}


def from_classifier(state: Mapping[str, Tensor]) -> StateDict:
    """The reverse of :func:`to_classifier`.

    Args:
        state: State dict of a model of ``configs/pretrain``.

    Returns:
        The backbone without prefix, and the classifier under ``head.``.

    Raises:
        CheckpointError: If a part of the classifier is missing.
    """
    names = {theirs: ours for ours, theirs in _HEAD.items()}
    _check(state, names)
    return {names.get(key, key.removeprefix(_BACKBONE)): tensor for key, tensor in state.items()}


def _check(state: Mapping[str, Tensor], needed: Mapping[str, str]) -> None:
    missing = [key for key in needed if key not in state]
    if missing:
        raise CheckpointError(
            f'the state dict has no {", ".join(missing)}; a shift-wise network with its classifier '
            'was expected'
        )
