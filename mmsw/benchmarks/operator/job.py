"""A contender with its data: how it is called, checked, and what it has to compute and to move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmsw.ops import shift_wise_conv2d

from .cases import Case, Tensors, take

FORWARD = 'forward'
BOTH = 'forward+backward'
FUSED, FOLDED, TWO_STEPS, BASELINE = 'fused', 'folded', 'small conv + shift', 'baseline'
RUNTIME = 'other runtime'
_TOLERANCES = {torch.float32: 3e-4, torch.bfloat16: 4e-2}  # of the largest number of a whole map


@dataclass
class Job:
    """A contender with its data, ready to run.

    Attributes:
        name: Name in the table.
        kind: ``FUSED``, ``FOLDED``, ``TWO_STEPS``, ``BASELINE`` or ``RUNTIME``.
        mode: ``FORWARD`` or ``BOTH``.
        case: Shape and map.
        function: Computes the outputs, a tuple, from the inputs.
        inputs: Map ``[B, C, H, W]`` and weights whose first dimension is a multiple of ``C``.
        definition: Outputs of the chosen channels, from float64 inputs reduced to them.
        multiply_adds: Of a forward pass.
        backend: Backend that runs it, if it is one of mmsw.
        mask: Small kernels that get a gradient, bool ``[C * nk]``; ``None`` for all.
        setting: What holds during a call.
    """

    name: str
    kind: str
    mode: str
    case: Case
    function: Callable[..., Tensors]
    inputs: Tensors
    definition: Callable[..., Tensors]
    multiply_adds: float
    backend: str | None = None
    mask: Tensor | None = None
    setting: Callable[[], AbstractContextManager] = nullcontext
    _grads: Tensors = field(default=(), init=False)

    def __post_init__(self) -> None:
        self.inputs = tuple(
            tensor.detach().requires_grad_(self.mode == BOTH) for tensor in self.inputs
        )

    def __call__(self) -> Tensors:
        """Outputs, followed by the gradients of the inputs where the mode asks for them."""
        with self.setting():
            return self._run()

    def _run(self) -> Tensors:
        if self.mode == FORWARD:
            with torch.no_grad():
                return self.function(*self.inputs)
        outputs = self.function(*self.inputs)
        if not self._grads:
            generator = torch.Generator().manual_seed(1)
            self._grads = tuple(
                torch.randn(out.shape, generator=generator).to(out) for out in outputs
            )
        return (*outputs, *torch.autograd.grad(outputs, self.inputs, self._grads))

    def check(self, result: Tensors) -> float:
        """Largest deviation from the definition, relative to the largest number.

        The definition runs in float64 on the first, the middle and the last channel. Whatever
        computes the operator is also compared as a whole with the reference backend.

        Raises:
            ArithmeticError: If the deviation is more than rounding.
        """
        channels = self.case.shape.channels
        some = torch.tensor(sorted({0, channels // 2, channels - 1}), device=self.case.device)
        inputs = [
            take(tensor.detach(), int(index == 0), channels, some)
            .double()
            .requires_grad_(self.mode == BOTH)
            for index, tensor in enumerate(self.inputs)
        ]
        expected = self.definition(*inputs, some)
        count = len(expected)
        if self.mode == BOTH:
            grads = [take(grad, 1, channels, some).double() for grad in self._grads]
            expected = (*expected, *torch.autograd.grad(expected, inputs, grads))
        found = [
            take(tensor, int(index <= count), channels, some) for index, tensor in enumerate(result)
        ]
        worst = deviation(found, expected)
        if self.kind in (FUSED, TWO_STEPS) and self.backend != 'torch':
            worst = max(worst, deviation(result, self.case_reference()))
        tolerance = _TOLERANCES[self.case.dtype]
        if not worst <= tolerance:
            raise ArithmeticError(
                f'{self.name}, {self.mode}, {self.case.shape}, sparsity {self.case.sparsity:.1f}: '
                f'numbers deviate by {worst:.2g} of the largest, at most {tolerance:g} is rounding'
            )
        return worst

    def case_reference(self) -> list[Tensor]:
        """Outputs and gradients of the whole operator by the reference backend, kept per mode."""
        case, known = self.case, self.case.expected
        if self.mode not in known:
            reference = Job(
                'reference', FUSED, self.mode, case,
                lambda x, weight: shift_wise_conv2d(x, weight, case.pattern, backend='torch'),
                (case.x, case.weight), case.definition, 0,
            )  # fmt: skip
            known[self.mode] = [tensor.detach() for tensor in reference()]
        if self.mask is None:
            return known[self.mode]
        *others, grad = known[self.mode]
        return [*others, torch.where(self.mask.view(-1, 1, 1, 1), grad, 0)]

    def moved_bytes(self) -> int:
        """Bytes that have to be read and written at least once."""
        shape, batch = self.case.shape, self.case.batch
        plane = batch * shape.channels * shape.size**2
        outputs = 3 * plane
        if self.kind == FOLDED:
            outputs = plane
        elif self.kind == BASELINE:
            outputs = plane
            if self.name == 'small conv':
                side = shape.size + 2 * self.case.pattern.margin
                outputs = batch * shape.channels * self.case.pattern.num_groups * side**2
        weights = sum(tensor.numel() for tensor in self.inputs[1:])
        numbers = plane + outputs + weights
        if self.mode == BOTH:
            numbers += outputs + 2 * plane + 2 * weights
        return numbers * self.inputs[0].element_size()

    def arithmetic(self) -> float:
        """Multiply-adds: those of the forward pass, three times as many with the backward pass."""
        return self.multiply_adds * (3 if self.mode == BOTH else 1)

    def needed_memory(self) -> int:
        """Bytes of the small convolutions' output and of what autograd keeps of shifted parts."""
        shape, pattern = self.case.shape, self.case.pattern
        side = shape.size + 2 * pattern.margin
        plane = self.case.batch * shape.channels * side**2 * self.inputs[0].element_size()
        if self.kind != TWO_STEPS and self.name != 'small conv':
            return 16 * plane
        copies = 4 * pattern.num_groups
        if self.mode == BOTH:
            copies += 2 * shape.num_reps * pattern.num_groups
        return copies * plane


def deviation(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest difference, relative to the largest number of each tensor; NaN if there is one."""
    worst = 0.0
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape:
            raise ArithmeticError(f'shape {tuple(one.shape)} instead of {tuple(other.shape)}')
        one, other = one.detach().double(), other.detach().double()
        largest = float(other.abs().max())
        deviation = float((one - other).abs().max())
        worst = max(worst, deviation / largest if largest else deviation)
        if deviation != deviation:
            return float('nan')
    return worst
