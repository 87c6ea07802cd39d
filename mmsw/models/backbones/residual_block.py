"""What all residual blocks share: layer scale, stochastic depth, checkpointing, folding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, nullcontext

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmsw.errors import StateDictError
from mmsw.models.layers.folded_operator import (
    ARMS,
    BESIDE,
    OPTIONS,
    can_be_folded,
    stored_options_problem,
)
from mmsw.models.layers.variant_options import VariantOptions
from mmsw.ops.pattern import newer_version

from .folded_block import fold_v1, run_v1

_EXPANSION = 4
_EPS = 1e-6
_TENSORS = ('weight', 'bias', 'gamma', 'beta', 'running_mean', 'running_var')


class ResidualBlock(nn.Module, ABC):
    """A map, and what a large kernel and two linear layers make of it.

    After :meth:`switch_to_deploy` a block holds the tensors of
    :mod:`~mmsw.models.backbones.folded_block` and no layers.

    A subclass has the layer with the large kernel under the name :attr:`operator_name`, whose own
    ``switch_to_deploy`` leaves it with the arms of a cross kernel.

    Args:
        operator: That layer.
        channels: Channels C.
        drop_path_rate: Probability of skipping the block for a sample.
        layer_scale_init_value: Initial layer scale; 0 or less for none.
        with_cp: Recompute the block in the backward pass to save memory.
    """

    operator_name: str
    variant_options = VariantOptions()  # of the operator of a folded block

    def __init__(
        self,
        operator: nn.Module,
        channels: int,
        drop_path_rate: float,
        layer_scale_init_value: float,
        with_cp: bool,
    ) -> None:
        super().__init__()
        self.add_module(self.operator_name, operator)
        self.deployed = False
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()
        self.with_cp = with_cp
        self.gamma = None
        if layer_scale_init_value > 0:
            self.gamma = nn.Parameter(torch.full((channels,), float(layer_scale_init_value)))

    @abstractmethod
    def branch(self, x: Tensor) -> Tensor:
        """The residual branch before layer scale, ``[B, C, H, W]`` to the same shape."""

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to the same shape."""
        if self.deployed:
            return self._run_folded(x)
        if self.with_cp and self.training and torch.is_grad_enabled():
            return checkpoint(
                self._residual,
                x,
                use_reentrant=False,
                context_fn=lambda: (nullcontext(), _keep_running_statistics(self)),
            )
        return self._residual(x)

    def _residual(self, x: Tensor) -> Tensor:
        return self.add_to(x, self.branch(x))

    def add_to(self, x: Tensor, out: Tensor) -> Tensor:
        """``x`` and what the branch makes of it, behind layer scale and stochastic depth."""
        if self.gamma is not None:
            out = out * self.gamma.view(1, -1, 1, 1)
        return x + self.drop_path(out)

    def unfoldable_norms(self) -> dict[str, nn.Module]:
        """Norms that keep the block from being folded, by name."""
        norms = dict(self._norms_to_fold())
        return {name: norm for name, norm in norms.items() if not can_be_folded(norm)}

    @abstractmethod
    def _norms_to_fold(self) -> Iterator[tuple[str, nn.Module]]:
        """Norms that must be affine in inference, with their names."""

    @abstractmethod
    def _fold(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of the folded form, float64, from those of :meth:`_tensors`."""

    @abstractmethod
    def _run_folded(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to the same shape."""

    @abstractmethod
    def _eps(self) -> tuple[float, ...]:
        """Small terms of the norms, as the folded form needs them."""

    def switch_to_deploy(self) -> None:
        """Replace all layers by the folded form, for inference; calling it twice is fine.

        Raises:
            TypeError: If a norm cannot be folded; the block is left as it was.
        """
        if self.deployed:
            return
        check_foldable(self)
        layer, trained = self._operator, any(p.requires_grad for p in self.parameters())
        dtype = self.pointwise_conv1.weight.dtype
        self.norm_eps = self._eps()
        layer.switch_to_deploy()
        folded = {name: t.to(dtype) for name, t in self._fold(self._tensors()).items()}
        self.channels, self.num_active = layer.in_channels, layer.num_active
        self.kernel_size, self.backend = layer.kernel_size, layer.backend
        self.variant_options = getattr(layer, 'variant_options', self.variant_options)
        if not self.variant_options.is_plain:
            folded[OPTIONS] = layer.get_buffer(OPTIONS)
        for name in [*self._modules, *self._parameters]:
            delattr(self, name)
        for name, tensor in folded.items():
            if name in (*ARMS, *BESIDE, OPTIONS):
                self.register_buffer(name, tensor)
            else:
                self.register_parameter(name, nn.Parameter(tensor, requires_grad=trained))
        self.deployed = True

    @property
    def _operator(self) -> nn.Module:
        return getattr(self, self.operator_name)

    def _tensors(self) -> dict[str, Tensor]:
        """Weights and statistics by name, the layer with the large kernel folded."""
        layer = self._operator
        found = {
            f'{self.operator_name}.{name}': getattr(layer, name)
            for name in ('channel_order', *ARMS, *BESIDE)
            if hasattr(layer, name)
        }
        for name, module in self.named_modules():
            for kind in _TENSORS:
                if isinstance(tensor := getattr(module, kind, None), Tensor):
                    found[f'{name}.{kind}'.lstrip('.')] = tensor
        return found

    @abstractmethod
    def _is_whole_in(self, state_dict: MutableMapping[str, Tensor], prefix: str) -> bool:
        """Whether a state dict has the block in training form."""

    def take_earlier_form(self, state_dict: MutableMapping[str, Tensor], prefix: str) -> None:
        """Fold in a state dict what an earlier version of mmsw folded in part, if any did.

        Args:
            state_dict: State dict; changed in place.
            prefix: What precedes the names of the block in it.
        """

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
        problem = newer_version(self, local_metadata)
        if self.deployed and self._is_whole_in(state_dict, prefix):
            problem = (
                'is folded, and the state dict has it in training form: load it into a network '
                'that is not folded (deploy=False), then call switch_to_deploy()'
            )
        elif not self.deployed and f'{prefix}{ARMS[0]}' in state_dict:
            problem = (
                'is in training form, and the state dict has it folded: load it into a network '
                'that is folded (deploy=True, or after switch_to_deploy())'
            )
        if self.deployed:
            problem = problem or stored_options_problem(self, state_dict, prefix)
        if problem:  # not among error_msgs: mmengine's loader would go on with random weights
            raise StateDictError(f'block "{prefix[:-1]}" {problem}')
        state_dict = dict(state_dict) if self.deployed else state_dict
        self.take_earlier_form(state_dict, prefix)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def extra_repr(self) -> str:
        if not self.deployed:
            return ''
        return (
            f'{self.channels}, kernel_size={self.kernel_size[0]}, '
            f'num_active={self.num_active}, backend={self.backend!r}, deployed=True'
        )


class ConvNeXtLayers:
    """What follows the large kernel in a ConvNeXt-style block: layer norm, two linear layers.

    A mixin of :class:`ResidualBlock`, which calls :meth:`_add_layers` at its end.
    """

    def _add_layers(self, channels: int) -> None:
        self.norm = nn.LayerNorm(channels, eps=_EPS)
        self.pointwise_conv1 = nn.Linear(channels, _EXPANSION * channels)
        self.act = nn.GELU()
        self.pointwise_conv2 = nn.Linear(_EXPANSION * channels, channels)

    def branch(self, x: Tensor) -> Tensor:
        x = self.norm(self._operator(x).permute(0, 2, 3, 1))
        x = self.pointwise_conv2(self.act(self.pointwise_conv1(x)))
        return x.permute(0, 3, 1, 2)

    def _eps(self) -> tuple[float, ...]:
        return (self.norm.eps,)

    def _fold(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return fold_v1(tensors, self.operator_name)

    def _run_folded(self, x: Tensor) -> Tensor:
        return run_v1(self, x)


def check_foldable(net: nn.Module) -> None:
    """See whether all norms of the blocks of a network can be folded.

    Raises:
        TypeError: If one cannot, with its name.
    """
    for name, block in net.named_modules():
        if isinstance(block, ResidualBlock) and not block.deployed:
            for norm_name, norm in block.unfoldable_norms().items():
                lack = ' without them' if isinstance(norm, _BatchNorm) else ''
                raise TypeError(
                    'only batch norms with running statistics can be folded: '
                    f'{f"{name}.{norm_name}".lstrip(".")} is a {type(norm).__name__}{lack}; keep '
                    'the training form'
                )


@contextmanager
def _keep_running_statistics(module: nn.Module) -> Iterator[None]:
    """Recomputing a block must not count its batch a second time: its norms count on copies.

    The forward pass saves the statistics for the backward pass, so the norms need some here too.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and norm.training]
    counted = [dict(norm.named_buffers()) for norm in norms]
    for norm, buffers in zip(norms, counted, strict=True):
        norm._buffers.update({name: buffer.clone() for name, buffer in buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, counted, strict=True):
            norm._buffers.update(buffers)
