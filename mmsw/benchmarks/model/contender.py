"""A network in one of its forms, ready to run: what it computes, weighs, and how it is called."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from mmsw.analysis.complexity import complexity
from mmsw.errors import MmswError
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
        deviation: Of the module's maps from those of the training form; ``None`` for that form.
        counts: Multiply-adds of the network for an image, by crop; all its forms have the same.

    Attributes:
        deviation: At most what its maps deviate from those of the training form.
    """

    def __init__(
        self,
        network: Network,
        form: Form,
        module: nn.Module,
        deviation: float | None,
        counts: dict[int, int],
    ) -> None:
        self.network, self.form, self.module = network, form, module
        self.deviation = self._of_module = deviation
        self.name = network.name + form.name
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        self.numbers = sum(tensor.numel() for tensor in tensors.values())
        self._counts = counts

    def multiply_adds(self, crop: int, mode: str) -> int:
        """Of an image: those of the network in evaluation, in a training step three times them."""
        return self._counts[crop] * (3 if mode == TRAINING else 1)

    def call(self, images: Tensor, mode: str) -> Callable[[], object]:
        """A call of the module on images that are where it is."""
        module = self.module
        module.train(mode == TRAINING)

        def train() -> None:
            loss_of(module(images)).backward()
            module.zero_grad(set_to_none=True)

        return train if mode == TRAINING else _without_gradients(partial(module, images))

    def started(self, images: Tensor) -> Callable[[], object]:
        """A call of an exported form.

        Raises:
            NotStartedError: If it cannot be exported, or does not run.
            ArithmeticError: If its maps are not those of the module.
        """
        plain = self.call(images, EVAL)
        try:
            with torch.no_grad():
                call = _without_gradients(self.form.start(self.module, images))
            maps = call()
        except Exception as error:  # of whatever exports and runs it
            raise NotStartedError(short(error)) from error
        if images.dtype == torch.float32:
            self.deviation = self._of_module + _deviation(maps, plain())
        return call

    def put(self, device: torch.device, dtype: torch.dtype, layout: torch.memory_format) -> None:
        """Move the module there."""
        self.module.to(device=device, dtype=dtype, memory_format=layout)


class NotStartedError(MmswError):
    """An exported form that cannot be had here; the message says why."""


def contenders_of(
    network: Network, forms: Sequence[Form], crops: Sequence[int]
) -> Iterator[Contender | Exception]:
    """A network in some of its forms; of a form that cannot be had, the error.

    Each form must give the maps of the training form; a form for training alone must give its
    gradients, too.

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
    expected: dict[bool, Sequence[Tensor]] = {}
    made: dict[object, tuple[nn.Module, float]] = {}
    for form in forms:
        if form.make not in made and form.name:
            trains = EVAL not in form.modes
            try:
                if trains not in expected:
                    original = copy.deepcopy(module) if trains else module
                    expected[trains] = _answers(original, images, trains)
                other = form.make(module)
                deviation = _deviation(_answers(other, images, trains), expected[trains])
            except Exception as error:  # it must not cost the others' rows
                yield RuntimeError(f'{network.name}{form.name}: {short(error)}')
                continue
            made[form.make] = other, deviation
        yield Contender(network, form, *made.get(form.make, (module, None)), counts)


def loss_of(maps: Sequence[Tensor]) -> Tensor:
    """A loss to which every map contributes."""
    return sum(map_.float().square().mean() for map_ in maps)


def _without_gradients(run: Callable[[], object]) -> Callable[[], object]:
    def evaluate() -> object:
        with torch.no_grad():
            return run()

    return evaluate


def _answers(module: nn.Module, images: Tensor, trains: bool) -> list[Tensor]:
    """Maps in evaluation; in training the maps, and all gradients in one tensor."""
    module.train(trains)
    with torch.set_grad_enabled(trains):
        maps = list(module(images))
    if not trains:
        return maps
    loss_of(maps).backward()
    grads = [param.grad for param in module.parameters() if param.grad is not None]
    module.zero_grad(set_to_none=True)
    return [*(map_.detach() for map_ in maps), torch.cat([grad.flatten() for grad in grads])]


def _deviation(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest difference of tensors, relative to the largest number of each.

    Raises:
        ArithmeticError: If it is more than rounding.
    """
    worst = max(
        float((one - other).abs().max() / other.abs().max())
        for one, other in zip(found, expected, strict=True)
    )
    if not worst <= _TOLERANCE:
        raise ArithmeticError(
            f'its maps or gradients deviate from those of the training form by {worst:.2g} of the '
            f'largest number, at most {_TOLERANCE:g} is rounding'
        )
    return worst
