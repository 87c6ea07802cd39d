"""Dense gradients that an exchange of filters goes by, of all processes, and their running mean."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmsw.errors import SparsityError
from mmsw.sparsity import DenseGradients, DynamicSettings
from mmsw.wording import listed

from .agreement import mean_over_processes

_SEEN = ''  # beside the gradients of layers, in one exchange between processes


class GrowthGradients:
    """Watches masked layers in the iterations that growth or redistribution looks at.

    Growth by ``'gradient'`` takes the gradients from the iteration in which an update is due to the
    step of the optimizer; ``'momentum'`` the running mean over all iterations.

    Args:
        layers: Masked layers by name.
        settings: What growth and redistribution go by.
        momentum: Share of the past in the running mean, in ``[0, 1)``.

    Attributes:
        recorder: What watches the layers; it may be lent before training begins.
        means: The running mean by layer name; empty if nothing goes by it.
    """

    def __init__(
        self, layers: Mapping[str, nn.Module], settings: DynamicSettings, momentum: float
    ) -> None:
        self.recorder = DenseGradients(layers)
        self.means: dict[str, Tensor] = {}
        self._settings, self._momentum = settings, momentum
        self._sums: dict[str, Tensor] = {}  # of the iterations since an update is due
        self._seen: Tensor | None = None  # how many processes got a gradient, by layer
        self._scale = 1.0

    def prepare(self) -> None:
        """To be called before the first iteration.

        A compiled model keeps the hooks that it has in its first iteration, and no others.
        """
        if self._settings.goes_by_gradients:
            self.recorder.watch()
            self.recorder.pause()
        else:
            self.recorder.stop()

    def begin(self, is_due: bool, loss_scale: float) -> None:
        """To be called before an iteration.

        Args:
            is_due: Whether the masks are to change as soon as the optimizer has made its step.
            loss_scale: What the loss is multiplied by.
        """
        self._scale = loss_scale
        is_first = self._settings.grow == 'gradient' and is_due and not self.recorder.sums
        if self._settings.goes_by_momentum or is_first:
            self.recorder.watch()

    @torch.no_grad()
    def end(self, is_due: bool) -> None:
        """To be called after an iteration, with the same ``is_due``."""
        if not self._settings.goes_by_momentum:
            return
        gradients = self._gathered()
        for name, gradient in gradients.items():
            unscaled = torch.nan_to_num(gradient / self._scale, 0.0, 0.0, 0.0)  # overflow: none
            mean = self.means.get(name, torch.zeros_like(gradient))
            self.means[name] = self._momentum * mean + (1 - self._momentum) * unscaled
        if self._settings.grow == 'gradient' and is_due:
            before = self._sums or dict.fromkeys(gradients, 0.0)
            self._sums = {name: before[name] + gradient for name, gradient in gradients.items()}
        self.recorder.pause()
        self.recorder.sums = {}

    def for_growth(self) -> dict[str, Tensor] | None:
        """What growth goes by; ``None`` if it is random."""
        if self._settings.grow == 'random':
            return None
        if self._settings.grow == 'momentum':
            return self.means
        return self._sums if self._settings.goes_by_momentum else self._gathered()

    def forget(self) -> None:
        """Forget everything but the running mean, and watch no longer."""
        self.recorder.pause()
        self.recorder.sums = {}
        self._sums = {}

    def _gathered(self) -> dict[str, Tensor]:
        """Gradients of all processes; zero where none of them saw any, which is noted."""
        layers, sums = self.recorder.layers, self.recorder.sums
        gradients = {
            name: sums.get(name, torch.zeros_like(la.weight)) for name, la in layers.items()
        }
        device = next(iter(gradients.values())).device
        gradients[_SEEN] = torch.tensor([float(name in sums) for name in layers], device=device)
        gradients = mean_over_processes(gradients)
        seen = gradients.pop(_SEEN)
        self._seen = seen if self._seen is None else self._seen + seen
        return gradients

    def check_seen(self) -> None:
        """Refuse an update if a layer got no gradient since the last one.

        Growth would take its filters of the lowest index, and redistribution would empty it.

        Raises:
            SparsityError: If there is such a layer.
        """
        if self._seen is None:
            return
        layers = self.recorder.layers
        unseen = [name for name, seen in zip(layers, self._seen.tolist(), strict=True) if not seen]
        self._seen = None
        if unseen:
            by_growth = self._settings.grow != 'random'
            asked, instead = (
                (f'grow={self._settings.grow!r}', "grow='random'")
                if by_growth
                else ("redistribution='momentum'", "redistribution='magnitude'")
            )
            raise SparsityError(
                f'{asked} needs gradients, and {len(unseen)} of {len(layers)} layers got none: '
                f'{listed(unseen)}. Leave layers that take no part in the loss out of the model or '
                f'freeze them, or choose {instead}'
            )
