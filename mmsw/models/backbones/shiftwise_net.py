"""The shift-wise network, both published generations, as a backbone for dense prediction."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import NoneType

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule, PretrainedInit
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmsw.checkpoint import load_pretrained
from mmsw.checkpoint.handed_over import start_from
from mmsw.models.layers import LayerNorm2d, ShiftWiseConv2d
from mmsw.models.layers.variant_options import VariantOptions
from mmsw.ops.ghost_channels import VERSIONS
from mmsw.registration import register
from mmsw.whole_number import whole_number, whole_numbers

from .downsampling import downsample_v1, downsample_v2
from .shiftwise_block import ShiftWiseBlock, ShiftWiseBlockV1, ShiftWiseBlockV2, check_foldable

_STRIDES = (4, 8, 16, 32)
_MIN_DIM = 4  # the channel attention of v2 works on a quarter
_INIT_STD = 0.02
_LOADING = ('prefix', 'input_weights')  # keys of init_cfg that load_pretrained takes
_BLOCKS_PER_LAYER = 3  # blocks of the deep stage that share one depth in layer-wise decay


@register(MODELS)
class ShiftWiseNet(BaseModule):
    """Shift-wise network (Shift-ConvNets / ShiftwiseConv, arXiv 2401.12736, sections 3 and 4).

    Four stages at strides 4, 8, 16 and 32. ``v1`` has the macro design of ConvNeXt, ``v2`` that of
    the CVPR 2025 release (convolutional stem, channel attention, GRN). Images may have any size.
    The design of ``v1`` would leave a side below 32 pixels without a position in the last stage, so
    there the image is padded with zeros, and the maps are cut to it again.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'``, ``'large'``, or ``dict(depths=[...],
            dims=[...])`` with four numbers each.
        version: ``'v1'`` or ``'v2'``.
        big_kernels: Focus length M of every stage, in positions of the stage's map.
        small_kernel: Side N of the small kernels; ``None`` for that of the version (5 for v1, 3 for
            v2).
        ghost_ratio: Share of channels that bypass the operator.
        num_paths: Parallel sets of small kernels per layer.
        num_reps: Repetitions of the shift pattern.
        in_channels: Image channels.
        drop_path_rate: Stochastic depth rate of the last block; rises linearly from 0.
        layer_scale_init_value: Initial layer scale; 0 or less for none.
        out_indices: Stages whose maps are returned, always in ascending order. Stages behind the
            last of them are not built: they have no parameters, and a checkpoint's are left out.
        frozen_stages: -1 trains everything, 0 freezes the stem, k freezes the stem and the first k
            stages (with the downsampling before them); their norm statistics stay as well. Where
            fewer than k stages are built, all of them are frozen.
        norm_eval: Keep all batch norms of the backbone in evaluation mode while training.
        with_cp: Recompute blocks in the backward pass to save memory. That costs time;
            ``recompute`` saves less and costs little.
        fused: Fuse the element-wise work of blocks in training, see
            :mod:`mmsw.models.backbones.fused_block`. Results are the same to rounding. False calls
            every layer by itself.
        recompute: In training, do not keep the largest map of a fused block, the hidden units
            behind GELU, but recompute it in the backward pass.
        norm_cfg: Norm of the branches, and of the block in v2. The layer norms of the published
            design (stem, downsampling, v1 block, outputs) are layer norms whatever it says.
        backend: Operator backend, see :func:`mmsw.ops.available_backends`.
        init_cfg: ``dict(type='Pretrained', checkpoint=PATH)`` loads a published file as it is, or
            one of this project, see :func:`mmsw.checkpoint.load_pretrained`, whose ``prefix`` and
            ``input_weights`` may stand in it; other kinds go to mmengine.
        output_norm: Layer-normalise the returned maps. False for a classifier, which normalises
            what is left after pooling, see :class:`mmsw.models.PooledNorm`.
        deploy: Build the folded form, for inference only: the layers and names that a network has
            after :meth:`switch_to_deploy`. It is filled by ``load_state_dict`` from such a network.
        pretrained: A file, the same as ``init_cfg=dict(type='Pretrained', checkpoint=FILE)``. The
            segmentors of mmseg hand their own ``pretrained`` over in this way.
        width_factor: What the channels of every stage are multiplied by, rounded down.
        padding: ``'full'`` or ``'same'``, see :class:`~mmsw.models.ShiftWiseConv2d`, as the three
            below.
        branch_weights: Learn how each branch weighs what it adds up.
        position: Add a constant to each shifted read.
        identity: ``'centre'`` or ``'blur'``.

    Attributes:
        settings: The arguments that the state dict depends on, as plain data, as files record them.

    Raises:
        ValueError: If an argument has a value that the network cannot honour.
        mmsw.checkpoint.CheckpointError: If ``pretrained`` is of another network, or ``init_cfg``
            is given as well.
    """

    arch_settings = {
        ('v1', 'tiny'): dict(depths=[3, 3, 9, 3], dims=[96, 192, 384, 768]),
        ('v1', 'small'): dict(depths=[3, 3, 27, 3], dims=[96, 192, 384, 768]),
        ('v1', 'base'): dict(depths=[3, 3, 27, 3], dims=[128, 256, 512, 1024]),
        ('v1', 'large'): dict(depths=[3, 3, 27, 3], dims=[192, 384, 768, 1536]),
        ('v2', 'tiny'): dict(depths=[3, 3, 18, 3], dims=[80, 160, 320, 640]),
        ('v2', 'small'): dict(depths=[3, 3, 27, 3], dims=[96, 192, 384, 768]),
        ('v2', 'base'): dict(depths=[3, 3, 27, 3], dims=[128, 256, 512, 1024]),
        ('v2', 'large'): dict(depths=[3, 3, 27, 3], dims=[192, 384, 768, 1536]),
    }
    default_small_kernel = {'v1': 5, 'v2': 3}

    def __init__(
        self,
        arch: str | dict = 'tiny',
        version: str = 'v2',
        big_kernels: Sequence[int] = (51, 49, 47, 13),
        small_kernel: int | None = None,
        ghost_ratio: float = 0.23,
        num_paths: int = 2,
        num_reps: int = 4,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        norm_cfg: dict | None = None,
        backend: str | None = 'auto',
        init_cfg: dict | list[dict] | None = None,
        output_norm: bool = True,
        deploy: bool = False,
        pretrained: str | os.PathLike[str] | None = None,
        fused: bool = True,
        recompute: bool = False,
        width_factor: float = 1.0,
        padding: str = 'full',
        branch_weights: bool = False,
        position: bool = False,
        identity: str = 'centre',
    ) -> None:
        super().__init__(init_cfg if pretrained is None else start_from(pretrained, init_cfg))
        self.depths, self.dims = self._arch(arch, version, width_factor)
        out_indices = whole_numbers(out_indices, 'out_indices')
        big_kernels = whole_numbers(big_kernels, 'big_kernels')
        frozen_stages = whole_number(frozen_stages, 'frozen_stages')
        _check_stages(len(self.depths), big_kernels, out_indices, frozen_stages, drop_path_rate)
        if small_kernel is None:
            small_kernel = self.default_small_kernel[version]
        small_kernel = whole_number(small_kernel, 'small_kernel', positive=True)
        num_paths = whole_number(num_paths, 'num_paths')
        num_reps = whole_number(num_reps, 'num_reps', positive=True)
        in_channels = whole_number(in_channels, 'in_channels', positive=True)
        variant = VariantOptions(padding, branch_weights, position, identity)
        for big_kernel in big_kernels:
            variant.check(big_kernel, small_kernel)
        self.version = version
        self.big_kernels = big_kernels
        self.small_kernel = small_kernel
        self.num_paths = num_paths
        self.num_reps = num_reps
        self.out_indices = out_indices
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.output_norm = output_norm
        norm_cfg = dict(type='BN') if norm_cfg is None else norm_cfg
        operator = dict(small_kernel=small_kernel, ghost_ratio=ghost_ratio, version=version)
        operator.update(num_paths=num_paths, num_reps=num_reps)
        self._recorded_settings = dict(
            operator,
            arch=dict(depths=self.depths, dims=self.dims),
            big_kernels=list(big_kernels),
            in_channels=in_channels,
            layer_scale_init_value=layer_scale_init_value,
            out_indices=list(out_indices),
            norm_cfg=_plain(norm_cfg),
            output_norm=output_norm,
            **variant.changed(),  # a file without them is read by earlier versions as well
        )
        self.settings = dict(self._recorded_settings)  # a subclass may have others of this name
        block = dict(layer_scale_init_value=layer_scale_init_value, with_cp=with_cp)
        block.update(fused=fused, recompute=recompute)
        operator.update(norm_cfg=norm_cfg, backend=backend, **variant._asdict())
        self._build(in_channels, drop_path_rate, block, operator)
        self._draw_weights()
        self._freeze_stages()
        if deploy:
            self.switch_to_deploy()

    def _build(self, in_channels: int, drop_path_rate: float, block: dict, operator: dict) -> None:
        """Build the stages up to the last one that is used, and the output norms."""
        build_downsample = downsample_v1 if self.version == 'v1' else downsample_v2
        build_block = ShiftWiseBlockV1 if self.version == 'v1' else ShiftWiseBlockV2
        # As if all stages were built: how deep a block lies does not depend on who uses its map.
        rates = iter(torch.linspace(0, drop_path_rate, sum(self.depths), device='cpu').tolist())
        self.downsample_layers = nn.ModuleList()
        self.stages = nn.ModuleList()
        for stage in range(1 + max(self.out_indices)):
            dim = self.dims[stage]
            previous = in_channels if stage == 0 else self.dims[stage - 1]
            self.downsample_layers.append(build_downsample(stage, previous, dim))
            shift_wise = dict(operator, kernel_size=self.big_kernels[stage])
            blocks = (
                build_block(
                    dim,
                    operator['norm_cfg'],
                    drop_path_rate=next(rates),
                    shift_wise=shift_wise,
                    **block,
                )
                for _ in range(self.depths[stage])
            )
            self.stages.append(nn.Sequential(*blocks))
        for stage in self.out_indices if self.output_norm else ():
            self.add_module(f'norm{stage}', LayerNorm2d(self.dims[stage]))

    @classmethod
    def _arch(
        cls, arch: str | dict, version: str, width_factor: float
    ) -> tuple[list[int], list[int]]:
        if version not in VERSIONS:
            raise ValueError(f'version must be one of {VERSIONS}, got {version!r}')
        if isinstance(arch, str):
            if (version, arch) not in cls.arch_settings:
                names = sorted(name for known, name in cls.arch_settings if known == version)
                raise ValueError(
                    f'arch must be one of {names} or dict(depths=..., dims=...), got {arch!r}'
                )
            arch = cls.arch_settings[version, arch]
        if not isinstance(arch, dict) or set(arch) != {'depths', 'dims'}:
            raise ValueError(
                f'a custom arch must be a dict with exactly the keys depths and dims, got {arch}'
            )
        depths, dims = (list(whole_numbers(arch[name], name)) for name in ('depths', 'dims'))
        if not 0 < width_factor < float('inf'):
            raise ValueError(f'width_factor must be a positive number, got {width_factor}')
        dims = [int(dim * width_factor) for dim in dims]
        for name, numbers, least in (('depths', depths, 1), ('dims', dims, _MIN_DIM)):
            if len(numbers) != 4 or min(numbers) < least:
                raise ValueError(
                    f'arch needs four whole {name} of at least {least} each, got {numbers}'
                )
        return depths, dims

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
            ``output_norm`` is False; sizes that are no multiple of the stride are rounded down by
            v1 (up on sides below 32 pixels) and up by v2.

        Raises:
            ValueError: If the images have no pixel.
        """
        height, width = x.shape[2:]
        if min(height, width) < 1:
            raise ValueError(f'ShiftWiseNet needs images with pixels, got {height} x {width}')
        padded = self.version == 'v1' and min(height, width) < _STRIDES[-1]
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

    def train(self, mode: bool = True) -> ShiftWiseNet:
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

    def switch_to_deploy(self) -> ShiftWiseNet:
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
            if isinstance(module, (ShiftWiseBlock, ShiftWiseConv2d)):
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


def _check_stages(
    num_stages: int,
    big_kernels: tuple[int, ...],
    out_indices: tuple[int, ...],
    frozen_stages: int,
    drop_path_rate: float,
) -> None:
    if len(big_kernels) != num_stages:
        raise ValueError(
            f'big_kernels needs one focus length per stage ({num_stages}), got {big_kernels}'
        )
    if not out_indices or not set(out_indices) <= set(range(num_stages)):
        raise ValueError(f'out_indices must name stages 0 to {num_stages - 1}, got {out_indices}')
    if frozen_stages not in range(-1, num_stages + 1):
        raise ValueError(f'frozen_stages must be between -1 and {num_stages}, got {frozen_stages}')
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f'drop_path_rate must be in [0, 1), got {drop_path_rate}')


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
