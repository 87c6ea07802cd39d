"""The shift-wise network, both published generations, as a backbone for dense prediction."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mmengine.registry import MODELS
from torch import nn

from mmsw.models.layers import LayerNorm2d
from mmsw.models.layers.variant_options import VariantOptions
from mmsw.ops.ghost_channels import VERSIONS
from mmsw.registration import register
from mmsw.whole_number import whole_number

from .shiftwise_block import ShiftWiseBlockV1, ShiftWiseBlockV2
from .staged_backbone import StagedBackbone, checked_arch, convnext_downsample, scaled_dims


@register(MODELS)
class ShiftWiseNet(StagedBackbone):
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
        padding: ``'full'`` or ``'same'``, see :class:`~mmsw.models.ShiftWiseConv2d`, as for the
            three below.
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
        super().__init__(
            *self._arch(arch, version, width_factor),
            big_kernels=big_kernels,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            drop_path_rate=drop_path_rate,
            norm_eval=norm_eval,
            output_norm=output_norm,
            init_cfg=init_cfg,
            pretrained=pretrained,
        )
        if small_kernel is None:
            small_kernel = self.default_small_kernel[version]
        self.version = version
        self.small_kernel = whole_number(small_kernel, 'small_kernel', positive=True)
        variant = VariantOptions(padding, branch_weights, position, identity)
        for big_kernel in self.big_kernels:
            variant.check(big_kernel, self.small_kernel)
        self.num_paths = whole_number(num_paths, 'num_paths')
        self.num_reps = whole_number(num_reps, 'num_reps', positive=True)
        in_channels = whole_number(in_channels, 'in_channels', positive=True)
        self._pads_small_images = version == 'v1'
        norm_cfg = dict(type='BN') if norm_cfg is None else norm_cfg
        operator = dict(
            small_kernel=self.small_kernel,
            ghost_ratio=ghost_ratio,
            version=version,
            num_paths=self.num_paths,
            num_reps=self.num_reps,
        )
        self._record(
            norm_cfg,
            **operator,
            **variant.changed(),  # a file without them is as one of an earlier version
            in_channels=in_channels,
            layer_scale_init_value=layer_scale_init_value,
        )
        operator.update(norm_cfg=norm_cfg, backend=backend, **variant._asdict())
        block_kind = ShiftWiseBlockV1 if version == 'v1' else ShiftWiseBlockV2

        def block(stage: int, drop_path_rate: float) -> nn.Module:
            return block_kind(
                self.dims[stage],
                norm_cfg,
                drop_path_rate=drop_path_rate,
                layer_scale_init_value=layer_scale_init_value,
                with_cp=with_cp,
                fused=fused,
                recompute=recompute,
                shift_wise=dict(operator, kernel_size=self.big_kernels[stage]),
            )

        downsample = convnext_downsample if version == 'v1' else _downsample_v2
        self._assemble(in_channels, downsample, block, deploy)

    @classmethod
    def _arch(
        cls, arch: str | dict, version: str, width_factor: float
    ) -> tuple[list[int], list[int]]:
        if version not in VERSIONS:
            raise ValueError(f'version must be one of {VERSIONS}, got {version!r}')
        named = {name: own for (known, name), own in cls.arch_settings.items() if known == version}
        depths, dims = checked_arch(arch, named)
        return depths, scaled_dims(dims, width_factor)


def _downsample_v2(stage: int, in_channels: int, out_channels: int) -> nn.Sequential:
    if stage == 0:
        return nn.Sequential(
            nn.Conv2d(in_channels, out_channels // 2, 3, stride=2, padding=1),
            LayerNorm2d(out_channels // 2),
            nn.GELU(),
            nn.Conv2d(out_channels // 2, out_channels, 3, stride=2, padding=1),
            LayerNorm2d(out_channels),
        )
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1), LayerNorm2d(out_channels)
    )
