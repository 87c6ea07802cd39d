"""What the backbones share: four stages, freezing, starting weights, outputs, depth of layers."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule, PretrainedInit
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmsw.checkpoint import load_pretrained
from mmsw.checkpoint.handed_over import start_from
from mmsw.models.layers import LayerNorm2d, ShiftWiseConv2d
from mmsw.whole_number import whole_number, whole_numbers

from .residual_block import ResidualBlock, check_foldable

_STRIDES = (4, 8, 16, 32)
_MIN_DIM = 4  # the channel attention of v2 works on a quarter
_INIT_STD = 0.02
_LOADING = ('prefix', 'input_weights')  # keys of init_cfg that load_pretrained takes
_BLOCKS_PER_LAYER = 3  # blocks of the deep stage that share one depth in layer-wise decay


class StagedBackbone(BaseModule):
    """Four stages of residual blocks at strides 4, 8, 16 and 32.

    A subclass checks its own arguments, then calls :meth:`_assemble`.

    Args:
        depths: Blocks per stage.
        dims: Channels per stage.
        big_kernels: Side M of the large kernel, per stage.
        out_indices: Stages whose maps are returned.
        frozen_stages: See :class:`~mmsw.models.ShiftWiseNet`, as for the others.
        drop_path_rate: Stochastic depth rate of the last block; rises linearly from 0.
        norm_eval: Keep all batch norms in evaluation mode while training.
        output_norm: Layer-normalise the returned maps.
        init_cfg: What the weights start from.
        pretrained: A file, in place of ``init_cfg``.

    Attributes:
        settings: The arguments that the state dict depends on, as plain data, as files record them.

    Raises:
        ValueError: If an argument has a value that the network cannot honour.
        mmsw.checkpoint.CheckpointError: If ``pretrained`` is of another network, or ``init_cfg``
            is given as well.
    """

    # Whether the map of a small image would run out of positions, so that it has to be padded.
    _pads_small_images = True

    def __init__(
        self,
        depths: list[int],
        dims: list[int],
        big_kernels: Sequence[int],
        out_indices: Sequence[int],
        frozen_stages: int,
        drop_path_rate: float,
        norm_eval: bool,
        output_norm: bool,
        init_cfg: dict | list[dict] | None,
        pretrained: str | os.PathLike[str] | None,
    ) -> None:
        if pretrained is not None:
            init_cfg = start_from(pretrained, init_cfg, type(self).__name__)
        super().__init__(init_cfg)
        self.depths, self.dims = depths, dims
        self.out_indices = whole_numbers(out_indices, 'out_indices')
        self.big_kernels = whole_numbers(big_kernels, 'big_kernels')
        self.frozen_stages = whole_number(frozen_stages, 'frozen_stages')
        self._check_stages(drop_path_rate)
        self.drop_path_rate = drop_path_rate
        self.norm_eval = norm_eval
        self.output_norm = output_norm

    def _check_stages(self, drop_path_rate: float) -> None:
        num_stages = len(self.depths)
        if len(self.big_kernels) != num_stages:
            raise ValueError(
                f'big_kernels needs one focus length per stage ({num_stages}), got '
                f'{self.big_kernels}'
            )
        if not self.out_indices or not set(self.out_indices) <= set(range(num_stages)):
            raise ValueError(
                f'out_indices must name stages 0 to {num_stages - 1}, got {self.out_indices}'
            )
        if self.frozen_stages not in range(-1, num_stages + 1):
            raise ValueError(
                f'frozen_stages must be between -1 and {num_stages}, got {self.frozen_stages}'
            )
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f'drop_path_rate must be in [0, 1), got {drop_path_rate}')

    def _record(self, norm_cfg: dict, **settings: Any) -> None:
        """Note the arguments that the state dict depends on."""
        self._recorded_settings = dict(
            settings,
            arch=dict(depths=self.depths, dims=self.dims),
            big_kernels=list(self.big_kernels),
            out_indices=list(self.out_indices),
            norm_cfg=_plain(norm_cfg),
            output_norm=self.output_norm,
        )
        self.settings = dict(self._recorded_settings)  # a subclass may have others of this name

    def _assemble(
        self,
        in_channels: int,
        build_downsample: Callable[[int, int, int], nn.Module],
        build_block: Callable[[int, float], nn.Module],
        deploy: bool,
    ) -> None:
        """Build the stages up to the last one that is used, and the output norms; draw, freeze.

        Args:
            in_channels: Image channels.
            build_downsample: From the number of a stage, and the channels before and in it.
            build_block: From the number of a stage, and the rate of stochastic depth.
            deploy: Whether to fold the network.
        """
        # As if all stages were built: how deep a block lies does not depend on who uses its map.
        depth = sum(self.depths)
        rates = iter(torch.linspace(0, self.drop_path_rate, depth, device='cpu').tolist())
        self.downsample_layers = nn.ModuleList()
        self.stages = nn.ModuleList()
        for stage in range(1 + max(self.out_indices)):
            previous = in_channels if stage == 0 else self.dims[stage - 1]
            self.downsample_layers.append(build_downsample(stage, previous, self.dims[stage]))
            blocks = (build_block(stage, next(rates)) for _ in range(self.depths[stage]))
            self.stages.append(nn.Sequential(*blocks))
        for stage in self.out_indices if self.output_norm else ():
            self.add_module(f'norm{stage}', LayerNorm2d(self.dims[stage]))
        self._draw_weights()
        self._freeze_stages()
        if deploy:
            self.switch_to_deploy()

    def init_weights(self) -> None:
        """Redraw the weights, or load what ``init_cfg`` names, with every check of the loader."""
        if self._is_init:
            return
        cfgs = [self.init_cfg] if isinstance(self.init_cfg, dict) else self.init_cfg or []
        files = [cfg for cfg in cfgs if cfg['type'] in ('Pretrained', PretrainedInit)]
        others = [cfg for cfg in cfgs if cfg not in files]
        if others or not files:
            self._draw_weights()
            given, self.init_cfg = self.init_cfg, others
            super().init_weights()
            self.init_cfg = given
        for cfg in files:
            _check_pretrained_cfg(cfg)
            options = {key: cfg[key] for key in _LOADING if key in cfg}
            load_pretrained(self, cfg['checkpoint'], **options)
        self._is_init = True

    @torch.no_grad()
    def _draw_weights(self) -> None:
        """Truncated normal of deviation 0.02 for every weight of a convolution or linear layer."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(module.weight, std=_INIT_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, ShiftWiseConv2d):
                module.init_weights()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of ``out_indices``.

        Args:
            x: Images ``[B, in_channels, H, W]``, ``H`` and ``W`` at least one pixel.

        Returns:
            Maps ``[B, dims[i], H / s, W / s]`` at strides s = 4, 8, 16, 32, layer-normalised unless
            ``output_norm`` is False; sizes that are no multiple of the stride are rounded down (up
            on sides below 32 pixels), and up by ``v2`` of ShiftWiseNet.

        Raises:
            ValueError: If the images have no pixel.
        """
        height, width = x.shape[2:]
        if min(height, width) < 1:
            name = type(self).__name__
            raise ValueError(f'{name} needs images with pixels, got {height} x {width}')
        padded = self._pads_small_images and min(height, width) < _STRIDES[-1]
        if padded:
            x = F.pad(x, (0, max(0, _STRIDES[-1] - width), 0, max(0, _STRIDES[-1] - height)))
        outputs = []
        for stage, (downsample, blocks) in enumerate(
            zip(self.downsample_layers, self.stages, strict=True)
        ):
            x = blocks(downsample(x))
            if stage in self.out_indices:
                feature = getattr(self, f'norm{stage}')(x) if self.output_norm else x
                if padded:
                    stride = _STRIDES[stage]
                    feature = feature[:, :, : -(-height // stride), : -(-width // stride)]
                outputs.append(feature.contiguous())
        return tuple(outputs)

    def train(self, mode: bool = True) -> StagedBackbone:
        super().train(mode)
        if mode:
            for module in self._frozen_modules():
                module.eval()
            if self.norm_eval:
                for module in self.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()
        return self

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        last = max(self.frozen_stages, 1)
        return [*self.downsample_layers[:last], *self.stages[: self.frozen_stages]]

    def _freeze_stages(self) -> None:
        for module in self._frozen_modules():
            module.eval()
            module.requires_grad_(False)

    def switch_to_deploy(self) -> StagedBackbone:
        """Fold all blocks for inference, see :mod:`mmsw.models.backbones.folded_block`.

        Outputs in evaluation mode stay the same up to float32 rounding. The network cannot be
        trained afterwards; calling it twice is fine.

        Returns:
            The network itself.

        Raises:
            TypeError: If a norm of a block cannot be folded, with its name; nothing is changed.
        """
        check_foldable(self)
        for module in list(self.modules()):
            if isinstance(module, (ResidualBlock, ShiftWiseConv2d)):
                module.switch_to_deploy()
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning rate decay.

        The stem is layer 0, the first two stages one layer each, the third one layer per three
        blocks, the last stage one more: 9 layers for SW-T v2. Downsampling belongs to the stage it
        leads to. Output norms and everything outside the backbone come last.

        Args:
            param_name: Name of the parameter in the whole model.
            prefix: What precedes the backbone's own names, e.g. ``'backbone.'``.

        Returns:
            Depth of the parameter, and the number of depths.
        """
        deep = -(-self.depths[2] // _BLOCKS_PER_LAYER)
        last = 3 + deep  # the layer of the final stage
        num_layers = last + 2
        if not param_name.startswith(prefix):
            return num_layers - 1, num_layers
        kind, *rest = param_name[len(prefix) :].split('.')
        if kind == 'downsample_layers':
            return (0, 2, 3, last)[int(rest[0])], num_layers
        if kind == 'stages':
            stage, block = int(rest[0]), int(rest[1])
            return (1, 2, 3 + block // _BLOCKS_PER_LAYER, last)[stage], num_layers
        return num_layers - 1, num_layers


def checked_arch(
    arch: str | dict, known: Mapping[str, dict[str, list[int]]]
) -> tuple[list[int], list[int]]:
    """Depths and widths of an architecture.

    Args:
        arch: A name, or ``dict(depths=[...], dims=[...])`` with four numbers each.
        known: Architectures by name.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(arch, str):
        if arch not in known:
            raise ValueError(
                f'arch must be one of {sorted(known)} or dict(depths=..., dims=...), got {arch!r}'
            )
        arch = known[arch]
    if not isinstance(arch, dict) or set(arch) != {'depths', 'dims'}:
        raise ValueError(
            f'a custom arch must be a dict with exactly the keys depths and dims, got {arch}'
        )
    depths, dims = (list(whole_numbers(arch[name], name)) for name in ('depths', 'dims'))
    for name, numbers, least in (('depths', depths, 1), ('dims', dims, _MIN_DIM)):
        if len(numbers) != 4 or min(numbers) < least:
            raise ValueError(
                f'arch needs four whole {name} of at least {least} each, got {numbers}'
            )
    return depths, dims


def scaled_dims(dims: Sequence[int], width_factor: float) -> list[int]:
    """Widths times a factor, rounded down.

    Raises:
        ValueError: If the factor is no positive number, or leaves too little of a width.
    """
    number = isinstance(width_factor, (int, float)) and not isinstance(width_factor, bool)
    if not number or not math.isfinite(width_factor) or width_factor <= 0:
        raise ValueError(f'width_factor must be a positive number, got {width_factor!r}')
    scaled = [int(dim * width_factor) for dim in dims]
    if min(scaled) < _MIN_DIM:
        raise ValueError(
            f'width_factor={width_factor} leaves fewer than {_MIN_DIM} channels of dims '
            f'{list(dims)}'
        )
    return scaled


def _plain(norm_cfg: dict) -> dict:
    """What can be saved of it as data: a class becomes its name."""
    kind = norm_cfg['type']
    name = kind if isinstance(kind, str) else kind.__name__
    plain = (str, int, float, bool, NoneType)
    return {**{k: v for k, v in norm_cfg.items() if isinstance(v, plain)}, 'type': name}


def _check_pretrained_cfg(cfg: dict) -> None:
    known = ('type', 'checkpoint', *_LOADING, 'map_location')
    unknown = sorted(set(cfg) - set(known))
    if unknown or 'checkpoint' not in cfg:
        raise ValueError(
            f"init_cfg of type 'Pretrained' needs checkpoint and may have {known[2:]}, got {cfg}"
        )


def convnext_downsample(stage: int, in_channels: int, out_channels: int) -> nn.Sequential:
    """Stem of ConvNeXt for stage 0, and what stands before the other stages."""
    if stage == 0:
        return nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 4, stride=4), LayerNorm2d(out_channels)
        )
    return nn.Sequential(
        LayerNorm2d(in_channels), nn.Conv2d(in_channels, out_channels, 2, stride=2)
    )
