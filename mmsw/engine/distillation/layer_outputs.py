"""Keeping what layers give while a model runs, without a trace in the model's copies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from mmsw.errors import UsageError


class LeftBehind:
    """A hook of a module that is not copied with it: in a copy or a pickle it does nothing.

    Args:
        function: What is called with the arguments that torch gives to such a hook.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __reduce__(self) -> tuple[Callable[[], Callable[..., None]], tuple[()]]:
        return _idle, ()


def _idle() -> Callable[..., None]:
    return _nothing


def _nothing(*arguments: Any) -> None:
    """What stands in a copy in place of the hook."""


class LayerOutputs:
    """The outputs of some layers of a model, in the forward passes that are asked for.

    What runs at other times is not kept: a validation, or a block that is computed again in the
    backward pass to save memory.

    Args:
        model: The model.
        names: Of layers, as in ``model.named_modules()``.
        whose: Who the model is, for messages.
    """

    def __init__(self, model: nn.Module, names: Iterable[str], whose: str) -> None:
        self._whose = whose
        self._found: dict[str, list[Tensor]] | None = None
        layers = dict(model.named_modules())
        self._handles = [
            layers[name].register_forward_hook(LeftBehind(self._keeping(name)))
            for name in dict.fromkeys(names)
        ]

    def start(self) -> None:
        """Keep what is computed from here on."""
        self._found = {}

    def stop(self) -> dict[str, list[Tensor]]:
        """Keep no more; returns the maps of each layer that ran, in the order of its calls."""
        found, self._found = self._found, None
        return found or {}

    @property
    def started(self) -> bool:
        """Whether outputs are kept at present."""
        return self._found is not None

    def remove(self) -> None:
        """Take the hooks away from the layers."""
        for handle in self._handles:
            handle.remove()

    def _keeping(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            if self._found is not None:
                self._refuse_linear(module, name)
                self._found.setdefault(name, []).extend(self._maps(output, name))

        return keep

    def _refuse_linear(self, module: nn.Module, name: str) -> None:
        if isinstance(module, nn.Linear):
            raise UsageError(
                f'DistillationHook: layer {name} of the {self._whose} is linear: its channels come '
                'last; name a layer that gives maps [N, C, H, W], such as the stage around it'
            )

    def _maps(self, output: Any, name: str) -> list[Tensor]:
        """The maps in an output, which may be one for each level."""
        if isinstance(output, (list, tuple)):
            return [found for item in output for found in self._maps(item, name)]
        if isinstance(output, Tensor) and output.ndim == 4:
            return [output]
        what = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UsageError(
            f'DistillationHook: layer {name} of the {self._whose} gives {what}; expected maps '
            '[N, C, H, W], or a tuple of them, as backbones and necks give'
        )
