"""Residual blocks of the two published generations of the shift-wise network."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Iterator, MutableMapping

from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from mmsw.errors import StateDictError
from mmsw.models.layers import GlobalResponseNorm, ShiftWiseConv2d, SqueezeExcitation
from mmsw.models.layers.channel_order_check import check_channel_order

from . import fused_block
from .folded_block import ARMS, fold_v2, run_v2
from .residual_block import ConvNeXtLayers, ResidualBlock

_EXPANSION = 4
_SQUEEZE = 4
_EPS = 1e-6


class ShiftWiseBlock(ResidualBlock):
    """What both generations share.

    Args:
        channels: Channels C.
        drop_path_rate: Probability of skipping the block for a sample.
        layer_scale_init_value: Initial layer scale; 0 or less for none.
        with_cp: Recompute the block in the backward pass to save memory.
        fused: Run fused in training, see :mod:`~mmsw.models.backbones.fused_block`.
        recompute: Of a fused block: recompute GELU in the backward pass to save memory.
        shift_wise: Keyword arguments of :class:`ShiftWiseConv2d`.
    """

    operator_name = 'shift_wise'

    def __init__(
        self,
        channels: int,
        drop_path_rate: float,
        layer_scale_init_value: float,
        with_cp: bool,
        fused: bool,
        recompute: bool,
        shift_wise: dict,
    ) -> None:
        layer = ShiftWiseConv2d(channels, channels, **shift_wise)
        super().__init__(layer, channels, drop_path_rate, layer_scale_init_value, with_cp)
        self.fused, self.recompute = fused, recompute

    def _residual(self, x: Tensor) -> Tensor:
        if self.fused and _runs_as_written(type(self)) and fused_block.may_fuse(self, x):
            return self._run_fused(x)
        return super()._residual(x)

    def _norms_to_fold(self) -> Iterator[tuple[str, nn.Module]]:
        for name, module in self.named_modules():
            if name.startswith('shift_wise.norm_'):
                yield name, module

    @abstractmethod
    def _run_fused(self, x: Tensor) -> Tensor:
        """The whole block, ``[B, C, H, W]`` to the same shape."""

    def _is_whole_in(self, state_dict: MutableMapping[str, Tensor], prefix: str) -> bool:
        return f'{prefix}shift_wise.paths.0.weight' in state_dict

    def take_earlier_form(self, state_dict: MutableMapping[str, Tensor], prefix: str) -> None:
        """Fold in a state dict what an earlier version of mmsw folded in part, for a folded block.

        These files have the shift-wise layer folded beside norms and linear layers.

        Args:
            state_dict: State dict; changed in place.
            prefix: What precedes the names of the block in it.

        Raises:
            StateDictError: If it is not complete, or damaged.
        """
        if not self.deployed or f'{prefix}shift_wise.{ARMS[0]}' not in state_dict:
            return
        keys = [key for key in state_dict if key.startswith(prefix)]
        found = {key.removeprefix(prefix): state_dict[key] for key in keys}
        order = 'shift_wise.channel_order'
        check_channel_order(found.get(order), self.channels, prefix + order)
        try:
            folded = self._fold(found)
        except (KeyError, RuntimeError) as error:
            raise StateDictError(
                f'block "{prefix[:-1]}" cannot be folded from the state dict: {error}'
            ) from error
        dtype = found['pointwise_conv1.weight'].dtype
        for key in keys:
            del state_dict[key]
        state_dict.update({f'{prefix}{name}': t.to(dtype) for name, t in folded.items()})


class ShiftWiseBlockV1(ConvNeXtLayers, ShiftWiseBlock):
    """First generation: shift-wise, layer norm, two linear layers (ConvNeXt style)."""

    def __init__(self, channels: int, norm_cfg: dict, **kwargs) -> None:
        super().__init__(channels, **kwargs)
        self._add_layers(channels)

    def _run_fused(self, x: Tensor) -> Tensor:
        return fused_block.run_v1(self, x)


class ShiftWiseBlockV2(ShiftWiseBlock):
    """Second generation: shift-wise, norm, channel attention, two linear layers with GRN, norm."""

    def __init__(self, channels: int, norm_cfg: dict, **kwargs) -> None:
        super().__init__(channels, **kwargs)
        self.norm = build_norm_layer(norm_cfg, channels)[1]
        self.se = SqueezeExcitation(channels, channels // _SQUEEZE)
        self.pointwise_conv1 = nn.Linear(channels, _EXPANSION * channels)
        self.act = nn.GELU()
        self.grn = GlobalResponseNorm(_EXPANSION * channels, eps=_EPS)
        self.pointwise_conv2 = nn.Linear(_EXPANSION * channels, channels, bias=False)
        self.norm2 = build_norm_layer(norm_cfg, channels)[1]

    def branch(self, x: Tensor) -> Tensor:
        x = self.se(self.norm(self.shift_wise(x))).permute(0, 2, 3, 1)
        x = self.pointwise_conv2(self.grn(self.act(self.pointwise_conv1(x))))
        return self.norm2(x.permute(0, 3, 1, 2))

    def _norms_to_fold(self) -> Iterator[tuple[str, nn.Module]]:
        yield from super()._norms_to_fold()
        yield from (('norm', self.norm), ('norm2', self.norm2))

    def _eps(self) -> tuple[float, ...]:
        return self.norm.eps, self.norm2.eps, self.grn.eps

    def _fold(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return fold_v2(tensors, self.norm_eps)

    def _run_fused(self, x: Tensor) -> Tensor:
        return fused_block.run_v2(self, x)

    def _run_folded(self, x: Tensor) -> Tensor:
        return run_v2(self, x)


@functools.cache
def _runs_as_written(kind: type[ShiftWiseBlock]) -> bool:
    """Whether no subclass has its own way through the layers that the fused pass would not take."""
    generation = next(base for base in kind.__mro__ if '_run_fused' in vars(base))
    return kind.branch is generation.branch and kind.add_to is ResidualBlock.add_to
