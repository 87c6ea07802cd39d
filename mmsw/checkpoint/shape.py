"""What kind of shift-wise network a state dict is of."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from torch import Tensor

from mmsw.errors import CheckpointError

_Shape = TypeVar('_Shape', bound='StateShape')

PATH = re.compile(r'^stages\.(\d+)\.(\d+)\.shift_wise\.paths\.(\d+)\.weight$')


class StateShape(ABC):
    """What can be read off the tensors of a network.

    Attributes:
        kind: What such a network is called in messages.
        example: Name of a tensor that every such network has.
    """

    kind: ClassVar[str]
    example: ClassVar[str]

    @classmethod
    def of(cls: type[_Shape], state: Mapping[str, Tensor], source: str = 'state dict') -> _Shape:
        """Read it off a state dict of this project (without prefix); ``source`` is for messages.

        Raises:
            CheckpointError: If the state dict lacks tensors that every such network has.
        """
        try:
            return cls._of(state)
        except KeyError as error:
            raise CheckpointError(f'{source} is incomplete: it has no tensor {error}') from error
        except (IndexError, ValueError) as error:
            raise CheckpointError(
                f'{source} is of no {cls.kind} of this project: it has no tensors such as '
                f'{cls.example}, or some of fewer dimensions than expected'
            ) from error

    @classmethod
    @abstractmethod
    def _of(cls: type[_Shape], state: Mapping[str, Tensor]) -> _Shape:
        """The same, or an error of Python where a tensor is missing or has too few dimensions."""


@dataclass(frozen=True)
class NetworkShape(StateShape):
    """What the tensors of a shift-wise network tell about it.

    Attributes:
        version: ``'v1'`` or ``'v2'``.
        depths: Blocks per stage.
        dims: Channels per stage.
        num_active: Channels per stage that take part in the operator.
        small_kernel: Side N of the small kernels.
        num_filters: Small kernels per stage and layer, ``num_active * ceil(M / N)``.
        num_paths: Parallel sets of small kernels.
    """

    family: ClassVar = 'shift-wise network'
    kind: ClassVar = family
    example: ClassVar = 'stages.0.0.shift_wise.paths.0.weight'
    compared: ClassVar = (
        'version', 'depths', 'dims', 'num_active', 'small_kernel', 'num_filters'
    )  # fmt: skip

    version: str
    depths: tuple[int, ...]
    dims: tuple[int, ...]
    num_active: tuple[int, ...]
    small_kernel: int
    num_filters: tuple[int, ...]
    num_paths: int

    @classmethod
    def _of(cls, state: Mapping[str, Tensor]) -> NetworkShape:
        found = [match for match in map(PATH.match, state) if match]
        stages = sorted({int(match[1]) for match in found})
        blocks = {s: {int(m[2]) for m in found if int(m[1]) == s} for s in stages}
        firsts = [f'stages.{s}.{min(blocks[s])}' for s in stages]
        weights = [state[f'{first}.shift_wise.paths.0.weight'] for first in firsts]
        return cls(
            version='v2' if any('.grn.' in key or '.se.' in key for key in state) else 'v1',
            depths=tuple(len(blocks[s]) for s in stages),
            dims=tuple(state[f'{f}.pointwise_conv1.weight'].shape[1] for f in firsts),
            num_active=tuple(state[f'{f}.shift_wise.norm_h.weight'].shape[0] for f in firsts),
            small_kernel=weights[0].shape[-1],
            num_filters=tuple(weight.shape[0] for weight in weights),
            num_paths=1 + max(int(match[3]) for match in found),
        )

    def __str__(self) -> str:
        groups = tuple(f // a for f, a in zip(self.num_filters, self.num_active, strict=True))
        reach = tuple(f'{(g - 1) * self.small_kernel + 1}..{g * self.small_kernel}' for g in groups)
        return (
            f'{self.version}, depths {self.depths}, dims {self.dims}, '
            f'{self.num_active} channels in the operator, small kernel {self.small_kernel}, '
            f'big kernels in {reach}, {self.num_paths} path(s)'
        )


def stored_kernels(state: Mapping[str, Tensor], pattern: str, small_kernel: int) -> tuple[int, ...]:
    """The focus lengths M that a stored shift pattern can be for, the odd one last.

    Args:
        state: State dict.
        pattern: What precedes the names of the pattern's tables; they are not empty.
        small_kernel: Side N of the small kernels.

    Returns:
        One length; two where the state dict is of the first version, whose tables tell ``M // 2``.
    """
    sizes = state.get(f'{pattern}kernel_sizes')
    if sizes is not None and sizes.numel() == 2:
        return (int(sizes[0]),)
    half = int(state[f'{pattern}shift_hv'].max()) + small_kernel - 1
    return (2 * half, 2 * half + 1)
