"""A network in one of its forms, ready to run: what it computes, weighs, and how it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from mmsw.analysis.complexity import complexity
from mmsw.wording import short

from .networks import EVAL, TRAINING, Form, Network

_CHECKED_CROP = 96
_TOLERANCE = 1e-3  # of the largest number of a map, float32


class Contender:
    """A network in a form.

    Args:
        network: What it is.
        form: How it runs.
        module: The network in this form.
        counts: Multiply-adds of the network for an image, by crop; all its forms have the same.
        deviation: Of its maps from those of the training form; ``None`` for that form.
    """

    def __init__(
        self,
        network: Network,
        form: Form,
        module: nn.Module,
        counts: dict[int, int],
        deviation: float | None,
    ) -> None:
        self.network, self.form, self.module = network, form, module
        self.deviation = deviation
        self.name = network.name + form.name
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        self.numbers = sum(tensor.numel() for tensor in tensors.values())
        self._counts = counts

    def multiply_adds(self, crop: int, mode: str) -> int:
        """Of an image: those of the network in evaluation, in a training step three times them."""
        return self._counts[crop] * (3 if mode == TRAINING else 1)

    def call(self, images: Tensor, mode: str) -> Callable[[], object]:
        """What is timed, on images that are where the module is."""
        module = self.module
        module.train(mode == TRAINING)

        def evaluate() -> Sequence[Tensor]:
            with torch.no_grad():
                return module(images)

        def train() -> None:
            loss = sum(out.float().square().mean() for out in module(images))
            loss.backward()
            module.zero_grad(set_to_none=True)

        return evaluate if mode == EVAL else train

    def put(self, device: torch.device, dtype: torch.dtype, layout: torch.memory_format) -> None:
        """Move the module there."""
        self.module.to(device=device, dtype=dtype, memory_format=layout)


def contenders_of(
    network: Network, forms: Sequence[Form], crops: Sequence[int]
) -> Iterator[Contender | Exception]:
    """A network in some of its forms; of a form that cannot be had, the error.

    Each form must give the maps of the training form.

    Args:
        network: What to build.
        forms: Of its forms.
        crops: Where its multiply-adds are counted.

    Raises:
        ImportError: If a package is missing that the network is from.
    """
    module = network.build()
    module.eval()
    counts = {crop: complexity(module, (3, crop, crop)).macs_dense for crop in crops}
    images = torch.randn(1, 3, _CHECKED_CROP, _CHECKED_CROP)
    with torch.no_grad():
        expected = module(images)
    for form in forms:
        made, deviation = module, None
        if form.name:
            try:
                made = form.make(module)
                made.eval()
                with torch.no_grad():
                    deviation = _deviation(made(images), expected)
            except Exception as error:  # it must not cost the others' rows
                yield RuntimeError(f'{network.name}{form.name}: {short(error)}')
                continue
        yield Contender(network, form, made, counts, deviation)


def _deviation(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest difference of maps, relative to the largest number of each.

    Raises:
        ArithmeticError: If it is more than rounding.
    """
    worst = max(
        float((one - other).abs().max() / other.abs().max())
        for one, other in zip(found, expected, strict=True)
    )
    if not worst <= _TOLERANCE:
        raise ArithmeticError(
            f'its maps deviate from those of the training form by {worst:.2g} of the largest '
            f'number, at most {_TOLERANCE:g} is rounding'
        )
    return worst
