"""The options by which a shift-wise layer departs from the published design."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmsw.ops.blur import check_blur, spread_of
from mmsw.ops.pattern_tables import check_kernel_sizes, conv_margin, num_groups

PADDINGS = ('full', 'same')
IDENTITIES = ('centre', 'blur')


class VariantOptions(NamedTuple):
    """See :class:`~mmsw.models.ShiftWiseConv2d`; the defaults are the published design.

    Attributes:
        padding: Of the small convolution: ``'full'`` (N - 1) or ``'same'`` (N // 2).
        branch_weights: Whether each branch weighs what it adds up.
        position: Whether each read brings a constant.
        identity: ``'centre'`` or ``'blur'``.
    """

    padding: str = 'full'
    branch_weights: bool = False
    position: bool = False
    identity: str = 'centre'

    def check(self, big_kernel: int, small_kernel: int) -> None:
        """See whether a layer of these sizes can have the options.

        Raises:
            ValueError: If it cannot, or an option has another value than those.
        """
        for name, known in (('padding', PADDINGS), ('identity', IDENTITIES)):
            if getattr(self, name) not in known:
                raise ValueError(f'{name} must be one of {known}, got {getattr(self, name)!r}')
        for name in ('branch_weights', 'position'):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f'{name} must be True or False, got {getattr(self, name)!r}')
        if self.identity == 'blur':
            check_blur(*check_kernel_sizes(big_kernel, small_kernel))

    @property
    def is_plain(self) -> bool:
        """Whether it is the published design."""
        return self == VariantOptions()

    @property
    def is_one_cross(self) -> bool:
        """Whether its folded form is a cross kernel and a bias alone."""
        return self == VariantOptions(branch_weights=self.branch_weights)

    def margin(self, small_kernel: int) -> int:
        """By how much the output of the small convolution exceeds the map on each side."""
        return conv_margin(small_kernel) if self.padding == 'full' else 0

    def spread(self, big_kernel: int, small_kernel: int) -> tuple[int, ...]:
        """How far the identity output reads in either direction, in pixels."""
        blurred = self.identity == 'blur'
        return spread_of(num_groups(big_kernel, small_kernel)) if blurred else (0,)

    def changed(self) -> dict[str, str | bool]:
        """Those that are not as published, by name."""
        plain = VariantOptions()._asdict()
        return {name: value for name, value in self._asdict().items() if value != plain[name]}

    def as_tensor(self) -> Tensor:
        """What a state dict tells them by, int32 ``[4]``: which are not as published."""
        return torch.tensor([name in self.changed() for name in self._fields], dtype=torch.int32)

    @classmethod
    def of_tensor(cls, found: Tensor) -> VariantOptions:
        """The options that :meth:`as_tensor` has written.

        Raises:
            ValueError: If it cannot have.
        """
        if found.numel() != len(cls._fields) or not set(found.flatten().tolist()) <= {0, 1}:
            raise ValueError(f'it must hold {len(cls._fields)} values of 0 and 1, got {found}')
        same, weighted, position, blurred = map(bool, found.flatten().tolist())
        return cls(PADDINGS[same], weighted, position, IDENTITIES[blurred])

    def __str__(self) -> str:
        return ', '.join(f'{name}={value!r}' for name, value in self._asdict().items())


def options_problem(found: Tensor | None, own: VariantOptions) -> str | None:
    """What to say where a state dict has a layer with other options; ``None`` where it fits.

    Args:
        found: What the state dict has of :meth:`VariantOptions.as_tensor`, if anything.
        own: The options of the layer.
    """
    if found is None or found.is_meta:
        return None
    try:
        theirs = VariantOptions.of_tensor(found)
    except ValueError as error:
        return f'has options in the state dict that cannot be read: {error}'
    if theirs == own:
        return None
    return f'has {theirs} in the state dict, and here {own}: build it with the options of the file'
