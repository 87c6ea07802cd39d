"""The method's complexity figures in closed form: SLaK's pair of convolutions, shift-wise modules.

Shift-ConvNets (arXiv 2401.12736v1), "Theoretical Computational Complexity Changes", equations 4 to
8. ``M`` is the focus length (SLaK: the long side), ``N`` the small side, ``nk = ceil(M / N)``. All
convolutions are depthwise and without bias; norms and SLaK's small branch, which folds into the
pair, are left out, as in the text. Multiply-adds count as one.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmsw.ops.pattern_tables import check_kernel_sizes, num_groups, positive

from .operator_work import small_conv_work

PUBLISHED_RATIOS = {51: 1.85, 49: 1.96, 45: 2.00, 13: 1.73, 5: 2.00}
"""The five ratios that the text prints, by the focus length that they belong to; N = 5."""
PUBLISHED_SMALL_KERNEL = 5
NAMED_LENGTHS = {47: 45}
"""Focus lengths that the text names, and those that its printed ratios belong to instead."""


def slak_pair_parameters(channels: int, big_kernel: int, small_kernel: int) -> int:
    """Parameters of SLaK's M x N and N x M convolution, ``2 * C * M * N`` (equation 5).

    Args:
        channels: Channels C.
        big_kernel: Long side M.
        small_kernel: Short side N.

    Raises:
        ValueError: If a size is not a positive whole number, N is even, or N exceeds M.
    """
    (channels,) = positive(channels=channels)
    big, small = check_kernel_sizes(big_kernel, small_kernel)
    return 2 * channels * big * small


def slak_pair_macs(
    channels: int, big_kernel: int, small_kernel: int, height: int, width: int, batch: int = 1
) -> int:
    """Multiply-adds of SLaK's pair, ``2 * B * C * H * W * M * N`` (equation 4).

    Args:
        channels: Channels C.
        big_kernel: Long side M.
        small_kernel: Short side N.
        height: Rows H of the map.
        width: Columns W of the map.
        batch: Samples B.

    Raises:
        ValueError: As :func:`slak_pair_parameters`.
    """
    height, width, batch = positive(height=height, width=width, batch=batch)
    return slak_pair_parameters(channels, big_kernel, small_kernel) * batch * height * width


def shift_wise_parameters(channels: int, big_kernel: int, small_kernel: int) -> int:
    """Parameters of the small convolutions of one path, ``C * nk * N * N`` (equation 7).

    Args:
        channels: Channels C that take part, without ghost channels.
        big_kernel: Focus length M.
        small_kernel: Side N.

    Raises:
        ValueError: As :func:`slak_pair_parameters`.
    """
    (channels,) = positive(channels=channels)
    big, small = check_kernel_sizes(big_kernel, small_kernel)
    return channels * num_groups(big, small) * small * small


def shift_wise_macs(
    channels: int, big_kernel: int, small_kernel: int, height: int, width: int, batch: int = 1
) -> int:
    """Multiply-adds of the small convolutions, the first term of equation 6.

    ``B * C * nk * N * N * (H + 2e) * (W + 2e)``, with ``e = N - 1 - N // 2``: the outputs exceed
    the map, since the shifts read beyond its border.

    Args:
        channels: Channels C that take part.
        big_kernel: Focus length M.
        small_kernel: Side N.
        height: Rows H of the map.
        width: Columns W of the map.
        batch: Samples B.

    Raises:
        ValueError: As :func:`slak_pair_parameters`.
    """
    height, width, batch = positive(height=height, width=width, batch=batch)
    filters = shift_wise_parameters(channels, big_kernel, small_kernel) // small_kernel**2
    return small_conv_work(filters, small_kernel, batch, height, width)


def shift_additions(
    channels: int,
    big_kernel: int,
    small_kernel: int,
    num_reps: int,
    height: int,
    width: int,
    batch: int = 1,
) -> int:
    """Additions of the shift-and-add step, the second term of equation 6.

    ``B * C * H * W * R * (2 * nk + 1)``: every group goes once into either arm, and one goes into
    the identity output, in each of the R repetitions. The text writes one symbol for them, and
    leaves them out of its ratios.

    Args:
        channels: Channels C that take part.
        big_kernel: Focus length M.
        small_kernel: Side N.
        num_reps: Repetitions R.
        height: Rows H of the map.
        width: Columns W of the map.
        batch: Samples B.

    Raises:
        ValueError: As :func:`slak_pair_parameters`.
    """
    channels, reps, height, width, batch = positive(
        channels=channels, num_reps=num_reps, height=height, width=width, batch=batch
    )
    groups = num_groups(*check_kernel_sizes(big_kernel, small_kernel))
    return batch * channels * height * width * reps * (2 * groups + 1)


def complexity_ratio(big_kernel: int, small_kernel: int) -> float:
    """SLaK's pair over the shift-wise module, ``2 * M / (N * nk)`` (equation 8).

    The same for parameters and for multiply-adds: equal channels, no border, no additions, one
    path, nothing pruned.

    Args:
        big_kernel: Focus length M.
        small_kernel: Side N.

    Raises:
        ValueError: As :func:`slak_pair_parameters`.
    """
    big, small = check_kernel_sizes(big_kernel, small_kernel)
    return 2 * big / (small * num_groups(big, small))


@dataclass(frozen=True)
class Ratio:
    """One row of the table of ratios, for one channel.

    Attributes:
        big_kernel: Focus length M.
        small_kernel: Side N.
        slak_parameters: Of SLaK's pair.
        shift_wise_parameters: Of the small convolutions.
        ratio: Equation 8.
        with_border: Ratio of the multiply-adds on a map, border included; None without a map.
        published: What the text prints for these sizes; None if it prints nothing.
    """

    big_kernel: int
    small_kernel: int
    slak_parameters: int
    shift_wise_parameters: int
    ratio: float
    with_border: float | None
    published: float | None


def ratio_of(big_kernel: int, small_kernel: int, map_size: tuple[int, int] | None = None) -> Ratio:
    """Work out a row of the table of ratios.

    Args:
        big_kernel: Focus length M.
        small_kernel: Side N.
        map_size: ``(H, W)`` of a map, for the ratio with the border.

    Raises:
        ValueError: As :func:`slak_pair_parameters`.
    """
    sizes = (1, big_kernel, small_kernel)
    with_border = None
    if map_size is not None:
        with_border = slak_pair_macs(*sizes, *map_size) / shift_wise_macs(*sizes, *map_size)
    known = PUBLISHED_RATIOS if small_kernel == PUBLISHED_SMALL_KERNEL else {}
    return Ratio(
        big_kernel,
        small_kernel,
        slak_pair_parameters(*sizes),
        shift_wise_parameters(*sizes),
        complexity_ratio(big_kernel, small_kernel),
        with_border,
        known.get(big_kernel),
    )
