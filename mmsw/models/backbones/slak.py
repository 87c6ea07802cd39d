"""SLaK, the large-kernel network that the shift-wise one is measured against, as a backbone."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mmengine.registry import MODELS
from torch import nn

from mmsw.registration import register
from mmsw.whole_number import whole_number

from .slak_block import SLaKBlock
from .staged_backbone import StagedBackbone, checked_arch, convnext_downsample, scaled_dims


@register(MODELS)
class SLaK(StagedBackbone):
    """Sparse large kernel network (SLaK, arXiv 2207.03620, sections 3 and 4).

    The macro design of ConvNeXt with kernels of up to 51 positions. A large kernel is decomposed
    into one of M x N and one of N x M beside a small one of N x N, each with a batch norm.
    Published networks are sparse weight by weight, and 1.3 times as wide to make up for it.

    With ``shift_wise=True``, small convolutions and shifts compute the large kernels ("equ-SLaK"):
    the same parameters under the same names, and the same function to rounding.

    Images may have any size; a side below 32 pixels is padded with zeros, and the maps are cut to
    it again.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'``, or ``dict(depths=[...], dims=[...])`` with four
            numbers each.
        big_kernels: Long side M of every stage, odd, in positions of the stage's map.
        small_kernel: Short side N, odd.
        width_factor: Every width of ``arch`` is multiplied by it and rounded down.
        decomposed: M x N and N x M as published; False: one M x M.
        shift_wise: Compute the large kernels with :class:`~mmsw.models.ShiftWiseLargeKernel`.
        in_channels: Image channels.
        drop_path_rate: Stochastic depth rate of the last block; rises linearly from 0.
        layer_scale_init_value: Initial layer scale; 0 or less for none.
        out_indices: Stages whose maps are returned, always in ascending order. Stages behind the
            last of them are not built.
        frozen_stages: As of :class:`~mmsw.models.ShiftWiseNet`.
        norm_eval: Keep all batch norms of the backbone in evaluation mode while training.
        with_cp: Recompute blocks in the backward pass to save memory. That costs time.
        norm_cfg: Norm of the branches. The layer norms are layer norms whatever it says.
        backend: Operator backend of the shift-wise and of the folded form, see
            :func:`mmsw.ops.available_backends`.
        init_cfg: ``dict(type='Pretrained', checkpoint=PATH)`` loads a published file as it is, or
            one of this project, see :func:`mmsw.checkpoint.load_pretrained`, whose ``prefix`` and
            ``input_weights`` may stand in it; other kinds go to mmengine.
        output_norm: Layer-normalise the returned maps.
        deploy: Build the folded form, for inference only: the layers and names that a network has
            after ``switch_to_deploy()``.
        pretrained: A file, the same as ``init_cfg=dict(type='Pretrained', checkpoint=FILE)``.

    Attributes:
        settings: The arguments that the state dict depends on, as plain data, as files record them.

    Raises:
        ValueError: If an argument has a value that the network cannot honour.
        mmsw.checkpoint.CheckpointError: If ``pretrained`` is of another network, or ``init_cfg``
            is given as well.
    """

    arch_settings = {
        'tiny': dict(depths=[3, 3, 9, 3], dims=[96, 192, 384, 768]),
        'small': dict(depths=[3, 3, 27, 3], dims=[96, 192, 384, 768]),
        'base': dict(depths=[3, 3, 27, 3], dims=[128, 256, 512, 1024]),
    }

    def __init__(
        self,
        arch: str | dict = 'tiny',
        big_kernels: Sequence[int] = (51, 49, 47, 13),
        small_kernel: int = 5,
        width_factor: float = 1.3,
        decomposed: bool = True,
        shift_wise: bool = False,
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
    ) -> None:
        depths, dims = checked_arch(arch, self.arch_settings)
        super().__init__(
            depths,
            scaled_dims(dims, width_factor),
            big_kernels=big_kernels,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            drop_path_rate=drop_path_rate,
            norm_eval=norm_eval,
            output_norm=output_norm,
            init_cfg=init_cfg,
            pretrained=pretrained,
        )
        self.small_kernel = whole_number(small_kernel, 'small_kernel', positive=True)
        for name, value in (('decomposed', decomposed), ('shift_wise', shift_wise)):
            if not isinstance(value, bool):  # 'no' of a command line would count as true
                raise ValueError(f'{name} must be True or False, got {value!r}')
        self.decomposed, self.shift_wise = decomposed, shift_wise
        in_channels = whole_number(in_channels, 'in_channels', positive=True)
        norm_cfg = dict(type='BN') if norm_cfg is None else norm_cfg
        self._record(
            norm_cfg,
            type='SLaK',
            small_kernel=self.small_kernel,
            width_factor=1.0,  # the recorded widths are multiplied already
            decomposed=decomposed,
            in_channels=in_channels,
            layer_scale_init_value=layer_scale_init_value,
        )
        del self.settings['type']
        large_kernel = dict(
            small_kernel=self.small_kernel,
            decomposed=decomposed,
            shift_wise=shift_wise,
            norm_cfg=norm_cfg,
            backend=backend,
        )

        def block(stage: int, drop_path_rate: float) -> nn.Module:
            return SLaKBlock(
                self.dims[stage],
                drop_path_rate,
                layer_scale_init_value,
                with_cp,
                dict(large_kernel, kernel_size=self.big_kernels[stage]),
            )

        self._assemble(in_channels, convnext_downsample, block, deploy)
