"""The shift-wise operator as its definition reads: loops over channels, groups and repetitions.

Slow and obvious, differentiable through autograd, and independent of everything in ``mmsw.ops``: it
takes plain numbers and tensors only.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

Outputs = tuple[Tensor, Tensor, Tensor]


def literal_shift_add(
    conv_out: Tensor, shift_hv: Tensor, identity_index: Tensor, small_kernel: int
) -> Outputs:
    """Step 2: every group of every channel, moved by each of its shifts and added."""
    channels, num_reps = identity_index.shape
    groups = conv_out.shape[1] // channels
    margin = small_kernel - 1 - small_kernel // 2
    height, width = conv_out.shape[2] - 2 * margin, conv_out.shape[3] - 2 * margin
    far = int(shift_hv.abs().max()) + small_kernel
    padded = F.pad(conv_out, (far, far, far, far))

    def read(row: int, down: int, right: int) -> Tensor:
        """``conv_out[:, row, y + down, x + right]`` of all positions, zero outside."""
        return padded[:, row, far + down : far + down + height, far + right : far + right + width]

    outputs = []
    for first in (0, num_reps):
        per_channel = []
        for channel in range(channels):
            total = torch.zeros_like(read(0, 0, 0))
            for row in range(channel * groups, (channel + 1) * groups):
                for shift in shift_hv[row, first : first + num_reps].tolist():
                    move = (margin, -shift) if first == 0 else (-shift, margin)
                    total = total + read(row, *move)
            per_channel.append(total)
        outputs.append(torch.stack(per_channel, dim=1))
    picked = [sum(read(row, margin, margin) for row in rows) for rows in identity_index.tolist()]
    return outputs[0], outputs[1], torch.stack(picked, dim=1)


def literal_shift_wise_conv2d(
    x: Tensor, weight: Tensor, shift_hv: Tensor, identity_index: Tensor
) -> Outputs:
    """Both steps: the small depthwise convolutions, then :func:`literal_shift_add`."""
    side = weight.shape[2]
    conv_out = F.conv2d(x, weight, padding=side - 1, groups=x.shape[1])
    return literal_shift_add(conv_out, shift_hv, identity_index, side)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected magnitude; NaN counts as infinite."""
    assert found.shape == expected.shape
    if not expected.numel():
        return 0.0
    found, expected = found.detach().double(), expected.detach().double()
    error = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
    return error if error == error else float('inf')
