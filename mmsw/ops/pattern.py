"""The shift pattern: which small kernel sits at which distance, drawn once and kept as data."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from mmsw.errors import StateDictError

from .pattern_tables import (
    PatternTables,
    arm_reach,
    check_kernel_sizes,
    conv_margin,
    num_groups,
    positive,
    slot_shift,
)

_BUFFERS = ('shift_hv', 'identity_index', 'kernel_sizes')


class ShiftPattern(nn.Module):
    """Where every small kernel of a shift-wise operator is placed.

    A large kernel of focus length ``big_kernel`` (M) is covered by ``num_groups = ceil(M / N)``
    small kernels of side ``small_kernel`` (N). Each repetition permutes the groups of every channel
    over the slots of the horizontal and of the vertical arm, and picks one group per channel for
    the identity output (Shift-ConvNets, arXiv 2401.12736, section 2, "Shift-wise").

    The pattern is a module without parameters so that it follows its layer through ``.to()``, deep
    copies and state dicts: ``shift_hv``, ``identity_index`` and ``kernel_sizes`` are saved with the
    weights, are checked when a state dict brings them, and are kept as they are when it does not
    (the published checkpoints hold none: they rely on the generator's seed). A state dict of
    version 1 has no ``kernel_sizes``; its tables do not tell 50 from 51. One that does not fit is
    refused by an error of its own, which mmengine's loader cannot turn into a line of its log.

    Args:
        big_kernel: Focus length M, in pixels.
        small_kernel: Side N of the small kernels, in pixels; odd.
        shift_hv: int32 ``[C * nk, 2 * R]``. Row ``c * nk + j`` holds the shift ("pad") of group
            ``j`` of channel ``c``, in pixels: R horizontal values, then R vertical ones.
        identity_index: ``[C, R]``, values ``c * nk + g``: the groups summed into the identity
            output. A group drawn twice counts twice.

    Raises:
        ValueError: If sizes do not fit together or a column of ``shift_hv`` is no permutation of
            the slots.
    """

    shift_hv: Tensor
    identity_index: Tensor
    kernel_sizes: Tensor  # int32 [2]: M and N, for whoever reads the state dict
    _version = 2
    _checked: PatternTables | None = None  # the buffers that `tables` found in order

    def __init__(
        self, big_kernel: int, small_kernel: int, shift_hv: Tensor, identity_index: Tensor
    ) -> None:
        super().__init__()
        big_kernel, small_kernel = check_kernel_sizes(big_kernel, small_kernel)
        self.big_kernel = big_kernel
        self.small_kernel = small_kernel
        _check_tables(big_kernel, small_kernel, shift_hv, identity_index)
        self.channels, self.num_reps = identity_index.shape
        self.register_buffer('shift_hv', shift_hv.to(torch.int32).contiguous())
        self.register_buffer('identity_index', identity_index.to(torch.int64).contiguous())
        self.register_buffer('kernel_sizes', self._sizes(shift_hv.device))

    @classmethod
    def draw(
        cls, big_kernel: int, small_kernel: int, channels: int, num_reps: int, seed: int = 123
    ) -> ShiftPattern:
        """Draw the pattern that the published checkpoints were trained with.

        A private CPU generator is used; the global random states of torch, numpy and Python stay as
        they are. The order of the draws is part of the checkpoint format (all horizontal
        permutations, repetition by repetition and channel by channel, then all vertical ones, then
        the identities). The buffers lie on the default device, like the parameters that are created
        beside them.

        Args:
            big_kernel: Focus length M, in pixels.
            small_kernel: Side N of the small kernels; odd.
            channels: Channels C that take part.
            num_reps: Repetitions R.
            seed: Seed of the private generator; 123 in every published network.

        Raises:
            ValueError: If a size is not a positive integer (N odd and at most M).
        """
        big_kernel, small_kernel = check_kernel_sizes(big_kernel, small_kernel)
        channels, num_reps = positive(channels=channels, num_reps=num_reps)
        draw = _draw if _get_current_dispatch_mode() is None else _draw.__wrapped__
        drawn = draw(big_kernel, small_kernel, channels, num_reps, seed)
        pattern = cls(big_kernel, small_kernel, *(table.clone() for table in drawn))
        return pattern.to(torch.empty(0).device)

    def tables(self) -> PatternTables:
        """The pattern as operators and backends read it: int32 and int64 tables, contiguous.

        Buffers may be exchanged behind the constructor's back, by ``to_empty()`` or by
        ``load_state_dict(assign=True)``: new ones are checked once, where their values are there to
        be read (not on the meta device, nor while a program is traced or transformed).

        Raises:
            ValueError: If they hold no pattern.
        """
        if torch.compiler.is_compiling():
            return self._converted(self.shift_hv, self.identity_index)
        shift_hv, identity_index = self._buffers['shift_hv'], self._buffers['identity_index']
        checked = self._checked
        if checked is not None and checked[0] is shift_hv and checked[1] is identity_index:
            return checked
        readable = can_be_read(shift_hv) and can_be_read(identity_index)
        if readable:
            try:
                _check_tables(self.big_kernel, self.small_kernel, shift_hv, identity_index)
            except ValueError as error:
                raise ValueError(
                    f'the tables of {self} hold no pattern: {error}. Were they filled? Load a '
                    'state dict that has them, or build the layer on a device other than meta'
                ) from error
        tables = self._converted(shift_hv, identity_index)
        # Converted ones are copies: they would miss what is written into the buffers later.
        if readable and tables[0] is shift_hv and tables[1] is identity_index:
            self._checked = tables
        return tables

    def _converted(self, shift_hv: Tensor, identity_index: Tensor) -> PatternTables:
        return PatternTables(
            shift_hv.to(torch.int32).contiguous(),
            identity_index.to(torch.int64).contiguous(),
            self.big_kernel,
            self.small_kernel,
        )

    @property
    def num_groups(self) -> int:
        """Small kernels per channel, ``nk``."""
        return num_groups(self.big_kernel, self.small_kernel)

    @property
    def margin(self) -> int:
        """Rows (columns) ``e`` by which a conv output exceeds the map on each side."""
        return conv_margin(self.small_kernel)

    @property
    def reach(self) -> int:
        """Farthest tap from the centre of either arm, in pixels."""
        return arm_reach(self.big_kernel, self.small_kernel)

    def extra_repr(self) -> str:
        return (
            f'big_kernel={self.big_kernel}, small_kernel={self.small_kernel}, '
            f'channels={self.channels}, num_reps={self.num_reps}'
        )

    def _load_from_state_dict(
        self,
        state_dict: dict,
        prefix: str,
        local_metadata: dict,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        if problem := newer_version(self, local_metadata):
            raise StateDictError(f'shift pattern "{prefix[:-1]}" {problem}')
        try:
            self.check_state(state_dict, prefix)
        except ValueError as error:
            raise StateDictError(
                f'shift pattern "{prefix[:-1]}" cannot be loaded: {error}'
            ) from error
        shift_hv = state_dict.get(f'{prefix}shift_hv')
        if shift_hv is not None:  # assign=True takes tensors as they are; backends read memory
            identity_index = state_dict[f'{prefix}identity_index']
            state_dict = {
                **state_dict,
                f'{prefix}shift_hv': shift_hv.to(torch.int32).contiguous(),
                f'{prefix}identity_index': identity_index.to(torch.int64).contiguous(),
                f'{prefix}kernel_sizes': self._sizes(shift_hv.device),  # version 1 lacks them
            }
        never_missing: list[str] = []
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, never_missing, unexpected_keys, error_msgs
        )

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles hold: they check their own buffers."""
        return {name: value for name, value in vars(self).items() if name != '_checked'}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Whole layers that were pickled before there was ``kernel_sizes`` get it."""
        super().__setstate__(state)
        self._checked = None
        if 'kernel_sizes' not in self._buffers:
            self.register_buffer('kernel_sizes', self._sizes(self.shift_hv.device))

    def _sizes(self, device: torch.device) -> Tensor:
        sizes = [self.big_kernel, self.small_kernel]
        return torch.tensor(sizes, dtype=torch.int32, device=device)

    def check_state(self, state_dict: Mapping[str, Tensor], prefix: str = '') -> None:
        """See whether a state dict holds a pattern that fits this one in every size, or none.

        Args:
            state_dict: State dict.
            prefix: What precedes the names of the pattern's buffers in it.

        Raises:
            ValueError: If it holds a part of a pattern, one of other sizes, or a damaged one.
        """
        found = {name: state_dict.get(f'{prefix}{name}') for name in _BUFFERS}
        shift_hv, identity_index, sizes = found.values()
        if shift_hv is None and identity_index is None and sizes is None:
            return
        if shift_hv is None or identity_index is None:
            missing = next(name for name, table in found.items() if table is None)
            raise ValueError(
                f'{missing} is missing; shift_hv and identity_index belong together, keep both or '
                'remove both'
            )
        for name, table in found.items():
            if not isinstance(table, (Tensor, NoneType)):
                raise ValueError(f'{name} is a {type(table).__name__}, a tensor was expected')
        self._check_sizes(sizes)
        if identity_index.shape != self.identity_index.shape:
            raise ValueError(
                f'identity_index has shape {tuple(identity_index.shape)}, '
                f'expected [channels, num_reps] = {tuple(self.identity_index.shape)}'
            )
        _check_tables(self.big_kernel, self.small_kernel, shift_hv, identity_index)

    def _check_sizes(self, sizes: Tensor | None) -> None:
        if sizes is None or sizes.is_meta:
            return
        own = [self.big_kernel, self.small_kernel]
        if sizes.tolist() != own:
            raise ValueError(
                f'its kernel_sizes [big_kernel, small_kernel] are {sizes.tolist()}, those of the '
                f'layer are {own}; build the network with the sizes of the file'
            )


def newer_version(module: nn.Module, local_metadata: Mapping[str, Any]) -> str | None:
    """What to say where a state dict has a module in a form that came after this one; or None."""
    found = local_metadata.get('version') or 1
    if found <= module._version:
        return None
    return (
        f'has the version {found} of {type(module).__name__}, this mmsw reads up to '
        f'{module._version}: install a newer mmsw'
    )


@lru_cache(maxsize=64)  # a network has few patterns, and a permutation per channel takes its time
def _draw(
    big_kernel: int, small_kernel: int, channels: int, num_reps: int, seed: int
) -> tuple[Tensor, Tensor]:
    """The tables of :meth:`ShiftPattern.draw`; not to be written to."""
    groups = num_groups(big_kernel, small_kernel)
    generator = torch.Generator('cpu').manual_seed(seed)
    host = dict(generator=generator, device='cpu')  # whatever the default device is
    # drawn[r, c, slot] is the group that takes the slot; its inverse is the slot of each group.
    drawn = torch.stack(
        [torch.randperm(groups, **host) for _ in range(2 * num_reps * channels)]
    ).view(2 * num_reps, channels, groups)
    slot_of_group = drawn.argsort(dim=2)
    shift_hv = slot_shift(slot_of_group, big_kernel, small_kernel).flatten(1).t()
    picked = [torch.randint(0, groups, [channels], **host) for _ in range(num_reps)]
    first_group = torch.arange(channels, device='cpu').unsqueeze(1) * groups
    identity_index = torch.stack(picked, dim=1) + first_group
    return shift_hv, identity_index


def can_be_read(table: Tensor) -> bool:
    """Whether a table has values: modes, tracers and transforms record what is done to a tensor."""
    if type(table) is not Tensor or torch.jit.is_tracing():
        return False
    if _get_current_dispatch_mode() is not None:
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(table)


def _check_tables(
    big_kernel: int, small_kernel: int, shift_hv: Tensor, identity_index: Tensor
) -> None:
    groups = num_groups(big_kernel, small_kernel)
    for name, table in (('shift_hv', shift_hv), ('identity_index', identity_index)):
        if table.dtype not in (torch.int32, torch.int64):  # a cast to half would round indices
            raise ValueError(f'{name} must hold int32 or int64, got {table.dtype}')
    if shift_hv.ndim != 2 or identity_index.ndim != 2:
        raise ValueError(
            'shift_hv must be [C * nk, 2 * R] and identity_index [C, R], '
            f'got {tuple(shift_hv.shape)} and {tuple(identity_index.shape)}'
        )
    channels, num_reps = identity_index.shape
    if tuple(shift_hv.shape) != (channels * groups, 2 * num_reps) or not channels or not num_reps:
        raise ValueError(
            f'identity_index {tuple(identity_index.shape)} asks for shift_hv of shape '
            f'{(channels * groups, 2 * num_reps)} with {groups} groups per channel, '
            f'got {tuple(shift_hv.shape)}'
        )
    if shift_hv.is_meta or identity_index.is_meta:
        return
    slots = torch.arange(groups, device=shift_hv.device)
    expected = slot_shift(slots, big_kernel, small_kernel).flip(0)
    found = shift_hv.view(channels, groups, -1).sort(dim=1).values
    if not torch.equal(found, expected.to(found.dtype).view(1, -1, 1).expand_as(found)):
        raise ValueError(
            f'the shifts of a channel must be a permutation of {expected.tolist()} '
            f'(big_kernel {big_kernel}, small_kernel {small_kernel})'
        )
    owner = torch.arange(channels, device=identity_index.device).unsqueeze(1)
    if not bool((identity_index.div(groups, rounding_mode='floor') == owner).all()):
        raise ValueError('identity_index must name, in row c, groups of channel c only')
