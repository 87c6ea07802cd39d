"""The operator with the options of the ablations, as the definition reads: loops and plain reads.

It takes tensors and numbers only, and knows nothing of :mod:`mmsw`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def literal_variant(
    x: Tensor,
    weight: Tensor,
    shift_hv: Tensor,
    identity_index: Tensor,
    same: bool = False,
    branch_weights: tuple[Tensor, Tensor, Tensor] | None = None,
    constants: tuple[Tensor, Tensor, Tensor] | None = None,
    blur_index: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Small convolutions, then every read of every group in every repetition.

    Args:
        x: ``[B, C, H, W]``.
        weight: ``[C * nk, 1, N, N]``.
        shift_hv: ``[C * nk, 2 * R]``.
        identity_index: ``[C, R]``.
        same: Whether the padding of the small convolution is N // 2 in place of N - 1.
        branch_weights: w1 and w2 ``[C * nk, R]``, w3 ``[C, R]``.
        constants: p1 and p2 ``[C * nk, R]``, p3 ``[C, R]``.
        blur_index: ``[C, R, 9]``, or ``[C, R, 4]`` for the cells 0, 2, 6 and 8.
    """
    side = weight.shape[2]
    conv_out = F.conv2d(x, weight, padding=side // 2 if same else side - 1, groups=x.shape[1])
    margin = 0 if same else side - 1 - side // 2
    filters, rows, columns = conv_out.shape[1:]
    height, width = rows - 2 * margin, columns - 2 * margin
    channels, num_reps = identity_index.shape
    groups = filters // channels
    far = int(shift_hv.abs().max()) + 4 * side + max(height, width)
    padded = F.pad(conv_out, (far, far, far, far))
    inside = F.pad(torch.ones_like(conv_out), (far, far, far, far))

    def term(row: int, down: int, right: int, branch: int, own: int, rep: int) -> Tensor:
        """What one read of group ``row`` brings at all positions."""
        at = (
            slice(far + margin + down, far + margin + down + height),
            slice(far + margin + right, far + margin + right + width),
        )
        found = padded[:, row, at[0], at[1]]
        if branch_weights is not None:
            found = found * branch_weights[branch][own, rep]
        if constants is not None:
            found = found + constants[branch][own, rep] * inside[:, row, at[0], at[1]]
        return found

    # pad[i] is relative to a conv output with the margin of "full", e = N - 1 - N // 2
    offset = -(shift_hv + side - 1 - side // 2)
    outputs = [[], [], []]
    for c in range(channels):
        totals = [torch.zeros_like(x[:, 0]) for _ in range(3)]
        for r in range(num_reps):
            for row in range(c * groups, (c + 1) * groups):
                totals[0] = totals[0] + term(row, 0, int(offset[row, r]), 0, row, r)
                totals[1] = totals[1] + term(row, int(offset[row, num_reps + r]), 0, 1, row, r)
            if blur_index is None:
                totals[2] = totals[2] + term(int(identity_index[c, r]), 0, 0, 2, c, r)
                continue
            cells = (0, 2, 6, 8) if blur_index.shape[2] == 4 else range(9)
            for row, q in zip(blur_index[c, r].tolist(), cells, strict=True):
                a, d = q // side - side // 2, q % side - side // 2
                totals[2] = totals[2] + term(row, -a * side, -d * side, 2, c, r)
        for output, total in zip(outputs, totals, strict=True):
            output.append(total)
    return tuple(torch.stack(output, 1) for output in outputs)
