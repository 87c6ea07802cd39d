"""Folded layers: whether a network or a file has some, and those that a training would need whole.

A folded layer is a residual block that is folded whole, or a shift-wise layer alone. It has no
weights that could be trained. In a part of a model that is frozen, such as a teacher, it does no
harm. Files of the form before blocks were folded have the shift-wise layers folded alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from mmsw.errors import CheckpointError, UsageError
from mmsw.wording import listed

_BUFFERS = ('deploy_wide', 'deploy_tall', 'deploy_bias')
_FIRST = f'.{_BUFFERS[0]}'


def is_folded(state: Mapping[str, Any]) -> bool:
    """Whether a state dict was saved after ``switch_to_deploy``."""
    return bool(layers_folded_in(state))


def layers_folded_in(state: Iterable[str]) -> list[str]:
    """Names of the blocks, or shift-wise layers alone, that a state dict has folded."""
    return [key.removesuffix(_FIRST) for key in state if key.endswith(_FIRST)]


def folded_layers(net: nn.Module) -> list[str]:
    """Names of the blocks, or shift-wise layers alone, of a network that are folded."""
    return [name for name, module in net.named_modules() if module._buffers.keys() >= {*_BUFFERS}]


def folded_tensors(net: nn.Module) -> dict[str, Tensor]:
    """What the folded layers of a network have beside parameters, by name."""
    return {
        f'{layer}.{name}': tensor
        for layer in folded_layers(net)
        for name, tensor in net.get_submodule(layer).named_buffers(recurse=False)
        if name.startswith('deploy_') and tensor.is_floating_point()
    }


def refuse_folded_layers(net: nn.Module) -> None:
    """Refuse to train a network whose layers are folded, unless they are frozen.

    Raises:
        UsageError: If a folded layer lies in a part that is trained.
    """
    if layers := _trained(folded_layers(net), net):
        raise UsageError(
            f'the model has folded layers ({listed(layers, 2)}), which cannot be trained: leave '
            'deploy=True and switch_to_deploy() out, or freeze the network that they are in '
            '(requires_grad_(False))'
        )


def refuse_folded(state: Mapping[str, Any], net: nn.Module, source: str) -> None:
    """Refuse to train what a state dict has folded, unless it is frozen.

    Args:
        state: State dict that is about to be loaded.
        net: The network that it goes into.
        source: Name of the file, for messages.

    Raises:
        CheckpointError: If it has a folded layer of a part that is trained.
    """
    if layers := _trained(layers_folded_in(state), net):
        raise CheckpointError(
            f'{source} was saved after switch_to_deploy, and folded layers ({listed(layers, 2)}) '
            'cannot be trained: name the file that was saved before'
        )


def _trained(layers: Iterable[str], net: nn.Module) -> list[str]:
    """Those of the layers that lie in a part that is trained; others need not be in the network."""
    modules = dict(net.named_modules())
    return [name for name in layers if name in modules and _is_trained(name, modules)]


def _is_trained(name: str, modules: Mapping[str, nn.Module]) -> bool:
    """Whether the smallest part around a layer that has parameters has any that are trained."""
    while name and next(modules[name].parameters(), None) is None:
        name = name.rpartition('.')[0]
    return any(parameter.requires_grad for parameter in modules[name].parameters())
