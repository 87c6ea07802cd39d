"""What the operator benchmark measures: shapes, contenders, and the numbers each must produce."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsw.analysis.complexity.operator_work import cross_taps, small_conv_work
from mmsw.ops import ShiftPattern, cross_conv2d, shift_add, shift_wise_conv2d
from mmsw.ops.assemble import arm_taps, assemble

from .shift_alternatives import ALTERNATIVES

Tensors = tuple[Tensor, ...]

FORWARD = 'forward'
BOTH = 'forward+backward'
FUSED, FOLDED, TWO_STEPS, BASELINE = 'fused', 'folded', 'small conv + shift', 'baseline'
SLICES = 'small conv + slices'
SLAK = 'SLaK pair'
SLAK_TRANSPOSED = 'SLaK pair, wide side transposed'
_STRIDES = (4, 8, 16, 32)
_SLAK_SIDE = 5
_DENSE_SIDES = (31, 7)
_TOLERANCE = 3e-4  # of the largest number; float32 sums over a whole map


@dataclass(frozen=True)
class OperatorShape:
    """One shift-wise layer: where it comes from and its sizes.

    Attributes:
        version: Generation of the network, or a name of one's own.
        crop: Side of the image, in pixels.
        stage: 1 to 4.
        channels: Channels C that take part.
        size: Side of the map, in positions.
        big_kernel: Focus length M.
        small_kernel: Side N.
        num_reps: Repetitions R.
    """

    version: str
    crop: int
    stage: int
    channels: int
    size: int
    big_kernel: int
    small_kernel: int
    num_reps: int

    def multiply_adds(self) -> int:
        """Of the fused operator, one image: ``C * H * W * (2 * N * L + N * N)``."""
        taps = cross_taps(self.big_kernel, self.small_kernel, whole_arms=True)
        return self.channels * self.size**2 * taps

    def __str__(self) -> str:
        return f'{self.version} {self.crop} stage {self.stage}'


def stage_shapes(version: str, crop: int, arch: str = 'tiny') -> list[OperatorShape]:
    """The four stages of a published network, as its own tables give them.

    Raises:
        ValueError: If there is no such network.
    """
    from mmsw.models.backbones import ShiftWiseNet
    from mmsw.ops.ghost_channels import ghost_channels

    key = (version, arch)
    if key not in ShiftWiseNet.arch_settings:
        known = sorted({version for version, _ in ShiftWiseNet.arch_settings})
        raise ValueError(f'version must be one of {known}, got {version!r}')
    default = {
        name: parameter.default
        for name, parameter in inspect.signature(ShiftWiseNet.__init__).parameters.items()
    }
    return [
        OperatorShape(
            version,
            crop,
            stage,
            dim - len(ghost_channels(dim, default['ghost_ratio'], version)),
            crop // stride,
            big_kernel,
            ShiftWiseNet.default_small_kernel[version],
            default['num_reps'],
        )
        for stage, (dim, stride, big_kernel) in enumerate(
            zip(
                ShiftWiseNet.arch_settings[key]['dims'],
                _STRIDES,
                default['big_kernels'],
                strict=True,
            ),
            start=1,
        )
    ]


class Case:
    """Data of one shape: a map, small kernels (some pruned) and what the operator makes of them."""

    def __init__(
        self, shape: OperatorShape, batch: int, device: torch.device, seed: int, sparsity: float
    ) -> None:
        self.shape, self.batch, self.device, self.sparsity = shape, batch, device, sparsity
        self._generator = torch.Generator().manual_seed(seed)
        self.pattern = ShiftPattern.draw(
            shape.big_kernel, shape.small_kernel, shape.channels, shape.num_reps
        ).to(device)
        n = shape.small_kernel
        self.x = self.randn(batch, shape.channels, shape.size, shape.size)
        filters = shape.channels * self.pattern.num_groups
        weight = self.randn(filters, 1, n, n) / n
        pruned = torch.randperm(filters, generator=self._generator)[: round(sparsity * filters)]
        weight[pruned.to(device)] = 0
        self.weight = weight
        self._expected: dict[str, list[Tensor]] = {}

    def randn(self, *size: int) -> Tensor:
        return torch.randn(*size, generator=self._generator).to(self.device)

    def small_conv(self, x: Tensor, weight: Tensor) -> Tensor:
        side = self.shape.small_kernel
        return F.conv2d(x, weight, padding=side - 1, groups=self.shape.channels)

    def definition(self, x: Tensor, weight: Tensor, channels: Tensor) -> Tensors:
        """The operator, literally, for some channels of the pattern."""
        groups = self.pattern.num_groups
        pattern = ShiftPattern(
            self.shape.big_kernel,
            self.shape.small_kernel,
            _take(self.pattern.shift_hv, 0, self.shape.channels, channels),
            self.pattern.identity_index[channels] % groups
            + torch.arange(len(channels), device=self.device).unsqueeze(1) * groups,
        )
        side = self.shape.small_kernel
        conv_out = F.conv2d(x, weight, padding=side - 1, groups=len(channels))
        return shift_add(conv_out, pattern, backend='torch')


@dataclass
class Job:
    """A contender with its data, ready to run.

    Attributes:
        name: Name in the table.
        kind: ``FUSED``, ``FOLDED``, ``TWO_STEPS`` or ``BASELINE``.
        mode: ``FORWARD`` or ``BOTH``.
        case: Shape and map.
        function: Computes the outputs, a tuple, from the inputs.
        inputs: Map ``[B, C, H, W]`` and weights whose first dimension is a multiple of ``C``.
        definition: Outputs of the chosen channels, from float64 inputs reduced to them.
        multiply_adds: Of a forward pass.
        backend: Backend that runs it, if it is one of mmsw.
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
    _grads: Tensors = field(default=(), init=False)

    def __post_init__(self) -> None:
        self.inputs = tuple(
            tensor.detach().requires_grad_(self.mode == BOTH) for tensor in self.inputs
        )

    def __call__(self) -> Tensors:
        """Outputs, followed by the gradients of the inputs where the mode asks for them."""
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
            _take(tensor.detach(), int(index == 0), channels, some)
            .double()
            .requires_grad_(self.mode == BOTH)
            for index, tensor in enumerate(self.inputs)
        ]
        expected = self.definition(*inputs, some)
        count = len(expected)
        if self.mode == BOTH:
            grads = [_take(grad, 1, channels, some).double() for grad in self._grads]
            expected = (*expected, *torch.autograd.grad(expected, inputs, grads))
        found = [
            _take(tensor, int(index <= count), channels, some)
            for index, tensor in enumerate(result)
        ]
        worst = _deviation(found, expected)
        if self.kind in (FUSED, TWO_STEPS) and self.backend != 'torch':
            worst = max(worst, _deviation(result, self.case_reference()))
        if not worst <= _TOLERANCE:
            raise ArithmeticError(
                f'{self.name}, {self.mode}, {self.case.shape}, sparsity {self.case.sparsity:.1f}: '
                f'numbers deviate by {worst:.2g} of the largest, at most {_TOLERANCE:g} is rounding'
            )
        return worst

    def case_reference(self) -> list[Tensor]:
        """Outputs and gradients of the whole operator by the reference backend, kept per mode."""
        known = self.case._expected
        if self.mode not in known:
            known[self.mode] = [
                tensor.detach() for tensor in _fused(self.case, self.mode, 'torch')()
            ]
        return known[self.mode]

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


def contenders(
    case: Case, mode: str, backends: Sequence[str], quick: bool = False, sweep: bool = False
) -> list[Job | str]:
    """Everything that competes on a case; a string says what is left out, and why.

    Args:
        case: Shape and data.
        mode: ``FORWARD`` or ``BOTH``.
        backends: Names of the backends to run.
        quick: Only the backends, slices, the SLaK pair and 7x7.
        sweep: Only what a sweep over the sparsity shows.
    """
    jobs: list[Job | str] = [_fused(case, mode, backend) for backend in backends]
    if sweep:
        if not quick and mode == FORWARD:
            jobs.append(_two_steps(case, mode, SLICES, 'slices'))
        return jobs
    jobs.append(_two_steps(case, mode, SLICES, 'slices'))
    jobs.append(_slak(case, mode, SLAK, transposed=False))
    if case.device.type == 'cpu':
        jobs.append(_slak(case, mode, SLAK_TRANSPOSED, transposed=True))
    if not quick:
        jobs.extend(
            _own_shift_add(case, mode, backend) for backend in backends if backend != 'torch'
        )
        for name in ALTERNATIVES:
            if name == 'slices':
                continue
            try:
                jobs.append(_two_steps(case, mode, f'small conv + {name}', name))
            except ImportError as error:
                jobs.append(f'small conv + {name}: {error}')
        jobs.append(_small_conv(case, mode))
        if mode == FORWARD:
            jobs.append(_folded(case))
    jobs.extend(_dense(case, mode, side) for side in _DENSE_SIDES if side == 7 or not quick)
    return jobs


def _operator_work(case: Case) -> float:
    """Multiply-adds that are left: with one repetition a pruned filter is an empty slot."""
    kept = 1 - case.sparsity if case.shape.num_reps == 1 else 1.0
    return case.batch * case.shape.multiply_adds() * kept


def _fused(case: Case, mode: str, backend: str) -> Job:
    return Job(
        f'mmsw {backend}', FUSED, mode, case,
        lambda x, weight: shift_wise_conv2d(x, weight, case.pattern, backend=backend),
        (case.x, case.weight), case.definition, _operator_work(case), backend,
    )  # fmt: skip


def _two_steps(case: Case, mode: str, name: str, alternative: str) -> Job:
    shift = ALTERNATIVES[alternative](case.pattern, case.shape.size, case.shape.size)
    return Job(
        name, TWO_STEPS, mode, case,
        lambda x, weight: shift(case.small_conv(x, weight)),
        (case.x, case.weight), case.definition, _operator_work(case),
    )  # fmt: skip


def _own_shift_add(case: Case, mode: str, backend: str) -> Job:
    return Job(
        f'small conv + mmsw {backend} shift_add', TWO_STEPS, mode, case,
        lambda x, weight: shift_add(case.small_conv(x, weight), case.pattern, backend=backend),
        (case.x, case.weight), case.definition, _operator_work(case), backend,
    )  # fmt: skip


def _small_conv(case: Case, mode: str) -> Job:
    side, size = case.shape.small_kernel, case.shape.size
    return Job(
        'small conv', BASELINE, mode, case,
        lambda x, weight: (case.small_conv(x, weight),),
        (case.x, case.weight),
        lambda x, weight, some: (F.conv2d(x, weight, padding=side - 1, groups=len(some)),),
        small_conv_work(len(case.weight), side, case.batch, size, size),
    )  # fmt: skip


def _folded(case: Case) -> Job:
    shape = case.shape
    wide, tall, small = assemble(case.weight, case.pattern.tables())
    tall = tall.clone()
    start = tall.shape[1] // 2 - shape.small_kernel // 2
    tall[:, start : start + shape.small_kernel] += small
    return Job(
        'mmsw folded (deploy)', FOLDED, FORWARD, case,
        lambda x, wide, tall: (cross_conv2d(x, wide, tall),),
        (case.x, wide.contiguous(), tall),
        lambda x, wide, tall, some: (cross_conv2d(x, wide, tall),),
        case.batch * shape.channels * shape.size**2
        * 2 * shape.small_kernel * arm_taps(shape.big_kernel, shape.small_kernel),
    )  # fmt: skip


def _slak(case: Case, mode: str, name: str, transposed: bool) -> Job:
    """``M x 5 + 5 x M``, the branch pair of SLaK."""
    shape, big = case.shape, case.shape.big_kernel
    big += 1 - big % 2
    tall, wide = (
        case.randn(shape.channels, 1, *sides) / big
        for sides in ((big, _SLAK_SIDE), (_SLAK_SIDE, big))
    )

    def run(x: Tensor, tall: Tensor, wide: Tensor) -> Tensors:
        if transposed:
            return (_depthwise(x, tall) + _depthwise(x.mT, wide.mT).mT,)
        return (_depthwise(x, tall) + _depthwise(x, wide),)

    return Job(
        name, BASELINE, mode, case, run, (case.x, tall, wide),
        lambda x, tall, wide, some: (_depthwise(x, tall) + _depthwise(x, wide),),
        case.batch * shape.channels * shape.size**2 * 2 * big * _SLAK_SIDE,
    )  # fmt: skip


def _dense(case: Case, mode: str, side: int) -> Job:
    shape = case.shape
    weight = case.randn(shape.channels, 1, side, side) / side
    return Job(
        f'depthwise {side}x{side}', BASELINE, mode, case,
        lambda x, weight: (_depthwise(x, weight),), (case.x, weight),
        lambda x, weight, some: (_depthwise(x, weight),),
        case.batch * shape.channels * shape.size**2 * side**2,
    )  # fmt: skip


def _depthwise(x: Tensor, weight: Tensor) -> Tensor:
    """Depthwise convolution with "same" zero padding.

    Where a weight gradient is wanted, rows are padded beforehand: oneDNN's is wrong when more than
    15 rows of padding are asked of the convolution itself (torch 2.13, CPU, float32).
    """
    rows, columns = weight.shape[2] // 2, weight.shape[3] // 2
    if x.device.type == 'cpu' and torch.is_grad_enabled() and rows > 15:
        x, rows = F.pad(x, (0, 0, rows, rows)), 0
    return F.conv2d(x, weight, padding=(rows, columns), groups=x.shape[1])


def _take(tensor: Tensor, dim: int, channels: int, chosen: Tensor) -> Tensor:
    """Entries of some channels along a dimension that holds the same number for every channel."""
    split = tensor.detach().unflatten(dim, (channels, -1))
    return split.index_select(dim, chosen).flatten(dim, dim + 1)


def _deviation(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
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
