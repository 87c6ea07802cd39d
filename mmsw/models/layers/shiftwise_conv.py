"""The shift-wise layer: small kernels, shifts, three normalised branches, identity channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmsw.errors import StateDictError
from mmsw.ops import ShiftPattern, shift_wise_conv2d
from mmsw.ops.assemble import assemble
from mmsw.ops.backends import check_backend
from mmsw.ops.ghost_channels import SEED, VERSIONS, channel_order
from mmsw.ops.pattern import can_be_read, newer_version
from mmsw.registration import register
from mmsw.whole_number import whole_number, whole_numbers

from .channel_order_check import check_channel_order
from .folded_operator import ARMS, OPTIONS, fold_operator, run_folded, stored_options_problem
from .masked_filters import MaskedFilters
from .operator_variant import OperatorVariant
from .variant_options import VariantOptions

_INIT_STD = 0.02


@register(MODELS)
class ShiftWiseConv2d(nn.Module):
    """Depthwise convolution with the reach of a large kernel, made of small kernels and shifts.

    Part of the channels runs through :func:`mmsw.ops.shift_wise_conv2d`; its horizontal, vertical
    and identity outputs are normalised and added to the input. The other ("ghost") channels pass
    unchanged. The output holds the processed channels first, then the ghost channels
    (Shift-ConvNets, arXiv 2401.12736, section 2, "Shift-wise" and "Intermodule Feature
    Manipulation").

    The layer keeps the spatial size: it acts as stride 1, "same" padding. It is registered as an
    mmcv convolution layer, ``build_conv_layer(dict(type='ShiftWiseConv2d'), C, C, M)``, so it
    accepts the arguments that mmcv passes and refuses those values that it cannot honour.

    Building a layer draws nothing from the global random generators; the small kernels start from a
    private one. :meth:`init_weights` redraws them from torch's global generator.

    Args:
        in_channels: Channels C of the map.
        out_channels: The same number.
        kernel_size: Focus length M, in pixels.
        small_kernel: Side N of the small kernels; odd.
        ghost_ratio: Share of channels that pass unchanged, in ``[0, 1)``.
        num_paths: Parallel sets of small kernels whose outputs are summed.
        num_reps: Repetitions R of the shift pattern.
        version: ``'v1'`` or ``'v2'``: how ``ghost_ratio`` is rounded to channels.
        norm_cfg: Norm layer of the three branches.
        backend: Operator backend, see :func:`mmsw.ops.available_backends`.
        stride: 1.
        padding: Padding of the small convolution: ``'full'`` (N - 1) or ``'same'`` (N // 2), with
            which a shifted read beyond the map finds zero. It never changes the size of the
            output, so ``None`` and ``kernel_size // 2`` stand for ``'full'``.
        dilation: 1.
        groups: 1 or C; the operator is depthwise.
        bias: False; the norm layers carry the bias.
        branch_weights: Weigh what each repetition adds to each output: one number per small kernel
            on either arm, one per channel in the identity. They are trained, and 1 at the start.
        position: Add a constant to each shifted read that lies inside the output of the small
            convolution: sinusoids over the repetitions, not trained, also of pruned small kernels.
        identity: ``'centre'``, or ``'blur'``: nine small kernels around each position (four where a
            channel has nine or fewer) in place of one. It needs ``small_kernel=3``.

    Raises:
        ValueError: If an argument has a value that the layer cannot honour.
    """

    channel_order: Tensor
    _version = 1
    _seen_versions: list[int] | None = None
    _is_dense = False  # whether the masks prune nothing in those versions
    variant_options = VariantOptions()  # of layers that were pickled before there were any

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        small_kernel: int = 3,
        ghost_ratio: float = 0.23,
        num_paths: int = 2,
        num_reps: int = 4,
        version: str = 'v2',
        norm_cfg: dict | None = None,
        backend: str | None = 'auto',
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str | None = None,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = False,
        branch_weights: bool = False,
        position: bool = False,
        identity: str = 'centre',
    ) -> None:
        super().__init__()
        big_kernel = _square(kernel_size, 'kernel_size')
        in_channels = whole_number(in_channels, 'in_channels')
        num_paths = whole_number(num_paths, 'num_paths')
        _check_channels(in_channels, out_channels, ghost_ratio, num_paths, version)
        named = isinstance(padding, str)
        options = VariantOptions(padding if named else 'full', branch_weights, position, identity)
        options.check(big_kernel, small_kernel)
        padding = None if named else padding
        self._check_convolution(in_channels, big_kernel, stride, padding, dilation, groups, bias)
        self.in_channels = self.out_channels = self.groups = in_channels
        self.kernel_size = (big_kernel, big_kernel)
        self.stride = self.dilation = (1, 1)
        self.padding = (big_kernel // 2, big_kernel // 2)
        self.output_padding = (0, 0)
        self.transposed = False
        self.bias = None
        # An unknown or missing one is an error now, not in a forward pass. Any device: it may move.
        check_backend(backend)
        self.backend = backend

        order, self.num_active = channel_order(in_channels, ghost_ratio, version)
        self.register_buffer('channel_order', torch.tensor(order))
        self.pattern = ShiftPattern.draw(big_kernel, small_kernel, self.num_active, num_reps)
        self.variant_options = options
        self.variant = None if options.is_plain else OperatorVariant(options, self.pattern)
        num_filters = self.num_active * self.pattern.num_groups
        self.paths = nn.ModuleList(
            MaskedFilters(num_filters, small_kernel) for _ in range(num_paths)
        )
        norm_cfg = dict(type='BN') if norm_cfg is None else norm_cfg
        self.norm_h, self.norm_v, self.norm_i = (
            build_norm_layer(norm_cfg, self.num_active)[1] for _ in range(3)
        )
        self.deployed = False
        self._draw_weights(torch.Generator().manual_seed(SEED))

    @staticmethod
    def _check_convolution(
        channels: int,
        big_kernel: int,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: int,
        bias: bool,
    ) -> None:
        """Refuse values of a convolution's arguments that the layer cannot honour."""
        if bias:
            raise ValueError(f'ShiftWiseConv2d needs bias=False, got {bias}')
        for name, value, accepted in (
            ('stride', stride, (1,)),
            ('dilation', dilation, (1,)),
            ('padding', padding, (None, big_kernel // 2)),
            ('groups', groups, (1, channels)),
        ):
            if (None if value is None else _square(value, name)) not in accepted:
                expected = ' or '.join(str(option) for option in accepted)
                raise ValueError(f'ShiftWiseConv2d needs {name}={expected}, got {value}')

    def init_weights(self) -> None:
        """Redraw the small kernels from torch's global generator; pruned weights stay zero.

        Branch weights become 1. A folded layer has none of them, and stays as it is.
        """
        self._draw_weights(None)
        if not self.deployed and self.variant is not None:
            self.variant.init_weights()

    @torch.no_grad()
    def _draw_weights(self, generator: torch.Generator | None) -> None:
        for path in () if self.deployed else self.paths:
            nn.init.trunc_normal_(path.weight, std=_INIT_STD, generator=generator)
            path.weight.masked_fill_(~path.mask, 0.0)

    def merged_weight(self) -> Tensor:
        """Sum of the masked paths, ``[C' * nk, 1, N, N]`` for the ``C'`` processed channels."""
        weight = self.paths[0]()
        for path in self.paths[1:]:
            weight = weight + path()
        return weight

    def kept_filters(self) -> Tensor:
        """Small kernels of which some path keeps a weight, boolean ``[C' * nk]``."""
        mask = self.paths[0].mask
        for path in self.paths[1:]:
            mask = mask | path.mask
        return mask.flatten(1).any(1)

    def _gradient_mask(self) -> Tensor | None:
        """Small kernels that need a gradient; ``None`` for all of them.

        Which ones are pruned is found anew in each pass. Only whether any is pruned is remembered,
        with the versions of the masks that it was seen in. Some writes to a tensor leave no new
        version (``mask.data``, ``torch.distributed``). The worst that comes of them is time spent
        on gradients that the masks then make zero.
        """
        if not self._may_skip_gradients():
            return None
        versions = None if torch.compiler.is_compiling() else self._mask_versions()
        if versions is None:
            return self.kept_filters()
        if versions != self._seen_versions:
            self._is_dense = bool(self.kept_filters().all())
            self._seen_versions = versions
        return None if self._is_dense else self.kept_filters()

    def _mask_versions(self) -> list[int] | None:
        """Which tensors the masks are and how often they were changed.

        ``None`` where a look at the values would wait for a GPU, where there are none, and where a
        tensor counts no changes.
        """
        found = []
        for path in self.paths:
            mask = path.mask
            if not mask.is_cpu or mask.is_inference() or not can_be_read(mask):
                return None
            found += id(mask), mask._version
        return found

    def _may_skip_gradients(self) -> bool:
        """Whether nobody looks at gradients of pruned filters before the masks make them zero."""
        return (
            self.training
            and torch.is_grad_enabled()
            and not any(path.is_observed() for path in self.paths)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to the same shape."""
        if not self.deployed:
            x, *outputs = self.branches(x)
            active, ghost = x[:, : self.num_active], x[:, self.num_active :]
            norms = self.branch_norms()
            h, v, i = (norm(out) for norm, out in zip(norms, outputs, strict=True))
            return torch.cat([h + v + i + active, ghost], dim=1)
        x = x.index_select(1, self.channel_order)
        active, ghost = x[:, : self.num_active], x[:, self.num_active :]
        return torch.cat([run_folded(self, active), ghost], dim=1)

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The map with its channels in the order of the layer, and the outputs of the operator.

        Returns:
            ``[B, C, H, W]``, processed channels first, and the horizontal, vertical and identity
            output of the ``C'`` processed channels, ``[B, C', H, W]``, before their norms.
        """
        x = x.index_select(1, self.channel_order)
        weight, mask = self.merged_weight(), self._gradient_mask()
        run = shift_wise_conv2d if self.variant is None else self.variant
        return x, *run(x[:, : self.num_active], weight, self.pattern, self.backend, mask)

    def branch_norms(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """Norms of the horizontal, vertical and identity output."""
        return self.norm_h, self.norm_v, self.norm_i

    def equivalent_kernels(self) -> tuple[Tensor, Tensor, Tensor]:
        """Fold paths, batch norms and the skip connection into one cross kernel and a bias.

        Returns:
            Horizontal arm ``[C', taps, N]`` (stored transposed), vertical arm ``[C', taps, N]``,
            bias ``[C']``, in the dtype of the weights; the inputs of :func:`mmsw.ops.cross_conv2d`.

        Raises:
            TypeError: If a branch norm is not a batch norm with running statistics.
            ValueError: If the layer has an option whose folded form is more than a cross kernel.
        """
        if not self.variant_options.is_one_cross:
            raise ValueError(
                f'with {self.variant_options} the layer is more than a cross kernel and a bias: '
                'fold it with switch_to_deploy()'
            )
        folded = self._fold()
        return tuple(folded[name] for name in ARMS)

    @torch.no_grad()
    def _fold(self) -> dict[str, Tensor]:
        """Tensors of the folded form, in the dtype of the weights."""
        weight, positions = self.merged_weight().double(), None
        if self.variant is None:
            kernels = assemble(weight, self.pattern.tables())
        else:
            kernels = self.variant.kernels(weight, self.pattern)
            positions = self.variant.positions(self.pattern)
        folded = fold_operator(kernels, self.branch_norms(), self.variant_options, positions)
        dtype = self.paths[0].weight.dtype
        return {name: tensor.to(dtype) for name, tensor in folded.items()}

    def switch_to_deploy(self) -> None:
        """Replace the branches by their folded form, for inference; calling it twice is fine."""
        if self.deployed:
            return
        folded = self._fold()
        if self.variant is not None:
            folded[OPTIONS] = self.variant.options
        for name, tensor in folded.items():
            self.register_buffer(name, tensor)
        del self.paths, self.norm_h, self.norm_v, self.norm_i, self.pattern, self.variant
        self.deployed = True

    def _other_form(self, state_dict: Mapping[str, Tensor], prefix: str) -> str | None:
        """What to say where a state dict has the layer folded and this one is not, or so."""
        whole, folded = f'{prefix}paths.0.weight', f'{prefix}{ARMS[0]}'
        if self.deployed and whole in state_dict:
            return (
                'is folded, and the state dict has it in training form: load it into a network '
                'that is not folded (deploy=False), then call switch_to_deploy()'
            )
        if not self.deployed and folded in state_dict:
            return (
                'is in training form, and the state dict has it folded: load it into a network '
                'that is folded (deploy=True, or after switch_to_deploy())'
            )
        return stored_options_problem(self, state_dict, prefix)

    def extra_repr(self) -> str:
        return (
            f'{self.in_channels}, kernel_size={self.kernel_size[0]}, '
            f'num_active={self.num_active}, backend={self.backend!r}, deployed={self.deployed}'
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Whole layers that were pickled before there were options have the published design."""
        super().__setstate__(state)
        if not self.deployed and 'variant' not in self._modules:
            self.variant = None

    def _load_from_state_dict(
        self,
        state_dict: dict,
        prefix: str,
        local_metadata: dict,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        problem = newer_version(self, local_metadata) or self._other_form(state_dict, prefix)
        if problem:  # not among error_msgs: mmengine's loader would go on with random kernels
            raise StateDictError(f'layer "{prefix[:-1]}" {problem}')
        key = f'{prefix}channel_order'
        order = state_dict.get(key)
        if order is None:  # published checkpoints rely on the seed of the draw
            state_dict = {**state_dict, key: self.channel_order}
        else:
            check_channel_order(order, self.in_channels, key)
            state_dict = {**state_dict, key: order.to(torch.int64).contiguous()}
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def _check_channels(
    in_channels: int, out_channels: int, ghost_ratio: float, num_paths: int, version: str
) -> None:
    if in_channels != out_channels:
        raise ValueError(
            'ShiftWiseConv2d is depthwise: out_channels must equal in_channels, '
            f'got {in_channels} -> {out_channels}'
        )
    if version not in VERSIONS:
        raise ValueError(f'version must be one of {VERSIONS}, got {version!r}')
    if not 0 <= ghost_ratio < 1:
        raise ValueError(f'ghost_ratio must be in [0, 1), got {ghost_ratio}')
    if num_paths < 1:
        raise ValueError(f'num_paths must be at least 1, got {num_paths}')


def _square(value: int | Sequence[int], name: str) -> int:
    values = set(whole_numbers(value, name))
    if len(values) != 1:
        raise ValueError(f'{name} must be the same in both directions, got {value}')
    return values.pop()
