"""Parameters and multiply-adds of a network: as built, after pruning, and naively.

What counts, and what does not, is written down in ``docs/complexity.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from math import prod

import torch
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from mmsw.engine.image_channels import image_channels
from mmsw.models.backbones.residual_block import ResidualBlock
from mmsw.models.layers import MaskedFilters, ShiftWiseConv2d, ShiftWiseLargeKernel
from mmsw.ops.pattern_tables import num_groups
from mmsw.summed import Summed

from .kernel_counts import KernelCounts
from .operator_work import layer_work, small_conv_work
from .parts import part_of
from .release_count import release_count
from .roi_heads import run_two_stage


@dataclass(frozen=True)
class Cost(Summed):
    """Counts of a module, a part or a network.

    Attributes:
        parameters: Parameters, and the arms and biases of folded layers and blocks.
        trainable: Parameters that require a gradient.
        parameters_used: Parameters that are not pruned.
        macs_dense: Multiply-adds if nothing were pruned.
        macs_used: Multiply-adds that are left after pruning.
        macs_naive: As ``macs_dense``, but with the small convolutions of shift-wise layers computed
            one by one, path by path.
        release_count: What the tool of the authors' release counts as FLOPs.
    """

    parameters: int = 0
    trainable: int = 0
    parameters_used: int = 0
    macs_dense: int = 0
    macs_used: int = 0
    macs_naive: int = 0
    release_count: int = 0


@dataclass(frozen=True)
class Complexity:
    """Parameters and multiply-adds of a network for one input.

    Attributes:
        shape: ``(channels, H, W)`` of the input.
        proposals: Boxes that went through the RoI heads, and boxes that got a mask; ``None`` where
            the network has no such heads.
        modules: By module name, what the module itself costs, without its children; modules that
            cost nothing are left out.
        not_run: Parts with parameters that a forward pass does not run.
        kernels: What is left after pruning, by kernel; ``None`` where nobody asked for it.
    """

    shape: tuple[int, int, int]
    proposals: tuple[int, int] | None
    modules: dict[str, Cost] = field(repr=False)
    not_run: tuple[str, ...] = ()
    kernels: KernelCounts | None = field(default=None, repr=False)

    @property
    def parts(self) -> dict[str, Cost]:
        """Cost by top-level module; RoI heads by what they consist of."""
        parts: dict[str, Cost] = {}
        for name, cost in self.modules.items():
            part = part_of(name)
            parts[part] = parts.get(part, Cost()) + cost
        return parts

    @property
    def total(self) -> Cost:
        """Cost of the network."""
        return sum(self.modules.values(), Cost())

    @property
    def parameters(self) -> int:
        """See :class:`Cost`."""
        return self.total.parameters

    @property
    def parameters_used(self) -> int:
        """See :class:`Cost`."""
        return self.total.parameters_used

    @property
    def macs_dense(self) -> int:
        """See :class:`Cost`."""
        return self.total.macs_dense

    @property
    def macs_used(self) -> int:
        """See :class:`Cost`."""
        return self.total.macs_used

    def to_dict(self) -> dict[str, object]:
        """Plain data for a JSON file."""
        kernels = {} if self.kernels is None else dict(kernels=self.kernels.to_dict())
        return dict(
            shape=list(self.shape),
            proposals=None if self.proposals is None else list(self.proposals),
            not_run=list(self.not_run),
            total=asdict(self.total),
            parts={name: asdict(cost) for name, cost in self.parts.items()},
            modules={name: asdict(cost) for name, cost in self.modules.items()},
            **kernels,
        )


def complexity(
    model: nn.Module, shape: Sequence[int], proposals: int = 1000, mask_proposals: int = 100
) -> Complexity:
    """Count the parameters of a network and the multiply-adds of one forward pass.

    The network runs in evaluation mode on tensors without data, so nothing is computed, whatever
    the size of the input; only a network with operators that torch cannot follow without data runs
    for real, on zeros. It is left as it was. Segmentors and one-stage detectors run up to the
    outputs of their heads, two-stage detectors run their RoI heads on a given number of boxes, and
    any other module is called with the input.

    Args:
        model: A network of mmseg, mmdet or plain torch.
        shape: ``(H, W)`` of an image, or ``(channels, H, W)``. Without channels, it has those that
            the first convolution of the backbone takes.
        proposals: Boxes that go through the box heads.
        mask_proposals: Boxes among them that go through the mask heads.

    Returns:
        The counts.

    Raises:
        ValueError: If an argument is out of range, the network refuses an input of this size, or
            its RoI heads are of a kind that cannot be run on given boxes.
        RuntimeError: If the network fails on this input.
    """
    if proposals < 1 or not 0 <= mask_proposals <= proposals:
        raise ValueError(
            'expected 1 or more proposals, and no more masks than that, got '
            f'proposals={proposals}, mask_proposals={mask_proposals}'
        )
    while is_model_wrapper(model):
        model = model.module
    shape = _checked_shape(shape, model)
    names = {module: name for name, module in model.named_modules()}
    boxes = None
    if hasattr(model, 'roi_head'):
        boxes = (proposals, mask_proposals if model.roi_head.with_mask else 0)
    counter = _count(model, names, shape, boxes)
    costs = dict(_parameters(model))
    for module, work in [*counter.work.items(), *_shift_wise_work(counter.maps)]:
        costs[names[module]] = costs.get(names[module], Cost()) + work
    order = {name: index for index, name in enumerate(names.values())}
    called = {part_of(names[module]) for module in counter.called}
    modules = {name: costs[name] for name in sorted(costs, key=order.get) if costs[name] != Cost()}
    not_run = [part for part in map(part_of, modules) if part not in called]
    return Complexity(shape, boxes, modules, tuple(dict.fromkeys(not_run)))


def _checked_shape(shape: Sequence[int], model: nn.Module) -> tuple[int, int, int]:
    sizes = tuple(shape)
    whole = all(isinstance(size, int) and size > 0 for size in sizes)
    if len(sizes) not in (2, 3) or not whole:
        raise ValueError(f'shape must be (H, W) or (channels, H, W), all positive, got {sizes}')
    return sizes if len(sizes) == 3 else (image_channels(model), *sizes)


def _count(
    model: nn.Module,
    names: dict[nn.Module, str],
    shape: tuple[int, int, int],
    boxes: tuple[int, int] | None,
) -> _Counter:
    for pretend in (True, False):
        counter = _Counter()
        try:
            with _evaluating(names), counter.watching(names):
                _run(model, shape, boxes, counter, pretend)
        except RuntimeError:  # fake tensors raise it where an operator needs data
            if not pretend:
                raise
        else:
            return counter
    raise AssertionError('unreachable')


def _run(
    model: nn.Module,
    shape: tuple[int, int, int],
    boxes: tuple[int, int] | None,
    counter: _Counter,
    pretend: bool,
) -> None:
    device = next((param.device for param in model.parameters()), torch.device('cpu'))
    fake = FakeTensorMode(allow_non_fake_inputs=True) if pretend else nullcontext()
    # attention in one piece has no multiply-adds to see
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode(False), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), fake:
            images = torch.zeros(1, *shape, device=device)
            with counter:
                if boxes is not None:
                    run_two_stage(model, images, *boxes, pretend)
                elif isinstance(model, BaseModel):
                    size = shape[1:]
                    keys = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
                    sample = BaseDataElement(metainfo=dict.fromkeys(keys, size))
                    model(images, [sample], mode='tensor')
                else:
                    model(images)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _Counter(TorchDispatchMode):
    """Counts products of the operators that run, for the innermost module that runs them."""

    def __init__(self) -> None:
        super().__init__()
        self.work: dict[nn.Module, Cost] = {}
        self.maps: list[tuple[ShiftWiseConv2d | ResidualBlock, torch.Size]] = []
        self.called: set[nn.Module] = set()
        self._running: list[nn.Module] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        rule = _PRODUCTS.get(func.overloadpacket)
        if rule is not None:
            macs = rule(args, out)
            # a folded block has products in place of the layers that the authors' tool looks at
            released = macs if _is_folded_block(self._running[-1]) else 0
            self._add(
                Cost(macs_dense=macs, macs_used=macs, macs_naive=macs, release_count=released)
            )
        return out

    def _add(self, cost: Cost) -> None:
        module = self._running[-1]
        self.work[module] = self.work.get(module, Cost()) + cost

    @contextmanager
    def watching(self, names: dict[nn.Module, str]) -> Iterator[None]:
        """Follow which module runs; the first one stands for all that runs outside of them."""
        self._running = [next(iter(names))]
        handles = []
        for module in names:
            handles.append(module.register_forward_pre_hook(self._enter))
            handles.append(module.register_forward_hook(self._leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, args: tuple) -> None:
        self._running.append(module)
        self.called.add(module)

    def _leave(self, module: nn.Module, args: tuple, out: object) -> None:
        if args and isinstance(args[0], Tensor) and isinstance(out, Tensor):
            count = release_count(module, args[0], out)
            if count:
                self._add(Cost(release_count=count))
            if isinstance(module, ShiftWiseConv2d) or _is_folded_block(module):
                self.maps.append((module, args[0].shape))
            elif isinstance(module, ShiftWiseLargeKernel):
                self._add(_large_kernel_cost(module, out))
            elif hasattr(module, 'deform_groups'):  # mmcv's own operator, which torch does not see
                macs = out.numel() * prod(module.weight.shape[1:])
                self._add(Cost(macs_dense=macs, macs_used=macs, macs_naive=macs))
        self._running.pop()


def _large_kernel_cost(layer: ShiftWiseLargeKernel, out: Tensor) -> Cost:
    """Of the large kernel as it is; naively, of the small kernels that it is cut into."""
    macs = out.numel() * prod(layer.kernel_size)
    batch, channels, height, width = out.shape
    blocks = prod(num_groups(side, layer.small_kernel) for side in layer.kernel_size)
    naive = small_conv_work(channels * blocks, layer.small_kernel, batch, height, width)
    return Cost(macs_dense=macs, macs_used=macs, macs_naive=naive)


def _is_folded_block(module: nn.Module) -> bool:
    return isinstance(module, ResidualBlock) and module.deployed


def _shift_wise_work(
    maps: list[tuple[ShiftWiseConv2d | ResidualBlock, torch.Size]],
) -> Iterator[tuple[nn.Module, Cost]]:
    """Work of shift-wise layers on their maps; needs their masks, so it waits for real tensors."""
    for layer, (batch, _, height, width) in maps:
        dense, used, naive = layer_work(layer, batch, height, width)
        # the authors build one small convolution per path; the shifts are a function
        work = Cost(macs_dense=dense, macs_used=used, macs_naive=naive, release_count=naive)
        yield layer, work


def _convolution(args: tuple, out: Tensor) -> int:
    x, weight, transposed = args[0], args[1], args[6]
    return (x if transposed else out).numel() * prod(weight.shape[1:])


def _product(args: tuple, out: Tensor) -> int:
    return args[0].numel() * args[1].shape[-1]


def _product_with_addend(args: tuple, out: Tensor) -> int:
    return args[1].numel() * args[2].shape[-1]


_PRODUCTS = {
    torch.ops.aten.convolution: _convolution,
    torch.ops.aten.mm: _product,
    torch.ops.aten.bmm: _product,
    torch.ops.aten.addmm: _product_with_addend,
    torch.ops.aten.baddbmm: _product_with_addend,
    torch.ops.aten.baddbmm_: _product_with_addend,
}


@contextmanager
def _evaluating(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Evaluation mode, and afterwards every module in the mode that it had."""
    modes = [(module, module.training) for module in modules]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


_FOLDED_KERNELS = ('deploy_wide', 'deploy_tall', 'deploy_small')
_FOLDED_SUMS = ('deploy_bias', 'deploy_position_h', 'deploy_position_v', 'deploy_position_i')


def _parameters(model: nn.Module) -> Iterator[tuple[str, Cost]]:
    """Parameters by the name of the module that owns them; a shared one counts once."""
    seen: set[nn.Parameter] = set()
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if p not in seen]
        seen.update(own)
        count = sum(param.numel() for param in own)
        trainable = sum(param.numel() for param in own if param.requires_grad)
        used = count
        if isinstance(module, MaskedFilters) or hasattr(module, 'mask_gate'):
            used -= int((~module.mask).sum())
        elif isinstance(module, (ShiftWiseConv2d, ResidualBlock)) and module.deployed:
            folded = dict(module.named_buffers(recurse=False))
            kernels = [folded[kind] for kind in _FOLDED_KERNELS if kind in folded]
            added = [folded[kind] for kind in _FOLDED_SUMS if kind in folded]
            count += sum(part.numel() for part in [*kernels, *added])
            used += sum(part.numel() for part in added)
            used += sum(int((kernel != 0).sum()) for kernel in kernels)
        yield name, Cost(count, trainable, used)
