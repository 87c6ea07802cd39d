"""Folded blocks in the form that other runtimes are fast with: maps of four axes, convolutions.

PyTorch gets a folded block as products over flattened maps, see
:mod:`mmsw.models.backbones.folded_block`. The same products are convolutions of one position here,
and the cross kernel is two depthwise convolutions: no map is flattened, and none is transposed but
around a layer norm.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsw.models.backbones.residual_block import ResidualBlock
from mmsw.models.layers import LayerNorm2d
from mmsw.models.layers.folded_operator import run_folded


@torch.no_grad()
def with_plain_blocks(network: nn.Module) -> nn.Module:
    """Replace the folded blocks and the layer norms of maps in a network, in place.

    Args:
        network: A copy whose modules may be replaced, see
            :func:`~mmsw.deploy.export.model_copy.sharing_copy`.

    Returns:
        The network. Results are the same up to rounding.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if form := _form_of(child):
                setattr(parent, name, form)
    return network


def _form_of(module: nn.Module) -> nn.Module | None:
    if isinstance(module, ResidualBlock) and module.deployed:
        return (_BlockV2 if hasattr(module, 'squeeze_weight') else _BlockV1)(module)
    return _Norm(module) if isinstance(module, LayerNorm2d) else None


class _Norm(nn.Module):
    def __init__(self, norm: LayerNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return _channel_norm(x, self.weight, self.bias, self.eps)


class _Cross(nn.Module):
    """The cross kernel of a block as a tall and a wide depthwise convolution."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        tall, wide = block.deploy_tall.unsqueeze(1), block.deploy_wide.mT.unsqueeze(1)
        self.register_buffer('tall', tall)
        self.register_buffer('wide', wide.contiguous())
        self.register_buffer('bias', block.deploy_bias)

    def forward(self, x: Tensor) -> Tensor:
        tall = _depthwise(x, self.tall, self.bias)
        return tall + _depthwise(x, self.wide, None)


class _Operator(nn.Module):
    """The operator of a block whose options need more than a cross kernel."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return run_folded(self.block, x)


class _BlockV1(nn.Module):
    """Of the first generation, and of SLaK."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.operator = _operator(block)
        self.expand, self.reduce = _product(block, 'expand'), _product(block, 'reduce')
        self.eps = block.norm_eps[0]

    def forward(self, x: Tensor) -> Tensor:
        z = _channel_norm(self.operator(x), None, None, self.eps)
        return x + self.reduce(F.gelu(self.expand(z)))


class _BlockV2(nn.Module):
    """Of the second generation, with channel attention and response norm."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.operator = _operator(block)
        self.squeeze, self.excite = _product(block, 'squeeze'), _product(block, 'excite')
        self.expand, self.reduce = _product(block, 'expand'), _product(block, 'reduce')
        self.register_buffer('response', block.response.float().view(1, -1, 1, 1))
        self.eps = block.norm_eps[2]

    def forward(self, x: Tensor) -> Tensor:
        z = self.operator(x)
        attention = self.excite(self.squeeze(z.mean((2, 3), keepdim=True)).relu()).sigmoid()
        hidden = F.gelu(self.expand(z * attention))
        # in float32: a sum of squares may leave the range of half precision
        norm = torch.linalg.vector_norm(hidden.float(), dim=(2, 3), keepdim=True)
        factor = self.response * (norm / (norm.mean(1, keepdim=True) + self.eps)) + 1
        return x + self.reduce(hidden * factor.to(hidden.dtype))


def _operator(block: ResidualBlock) -> nn.Module:
    return (_Cross if block.variant_options.is_one_cross else _Operator)(block)


def _product(block: ResidualBlock, name: str) -> nn.Conv2d:
    """A product of a block as a convolution of one position, which shares its tensors."""
    weight, bias = (getattr(block, f'{name}_{part}') for part in ('weight', 'bias'))
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, device='meta')
    conv.weight = nn.Parameter(weight[:, :, None, None], requires_grad=False)
    conv.bias = nn.Parameter(bias, requires_grad=False)
    return conv


def _depthwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    rows, columns = weight.shape[2:]
    padding = (rows // 2, columns // 2)
    return F.conv2d(x, weight, bias, padding=padding, groups=weight.shape[0])


def _channel_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Layer norm over the channels of ``[B, C, H, W]``."""
    x = F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], weight, bias, eps)
    return x.permute(0, 3, 1, 2).contiguous()  # else later maps keep the order, which binds sizes
