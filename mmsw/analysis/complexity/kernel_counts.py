"""Multiply-adds that are left after pruning, by the kernel that computes the layers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from mmsw.summed import Summed

from .parts import part_of

DEFAULT_BLOCK = (4, 1)  # filters by inputs: the blocks of sparse 1 x 1 convolutions on CPUs


@dataclass(frozen=True)
class KernelWork(Summed):
    """Multiply-adds of a layer, a part or a network; or weights that a layer multiplies by.

    Attributes:
        dense: If nothing were pruned.
        cut: A dense kernel, after filters and input channels that are zero as a whole are cut out.
        blocks: A kernel that skips blocks of zeros.
        two_four: Hardware that halves the work of layers with two zeros in each four weights.
        single: A kernel that skips every single zero: no kernel does less.
    """

    dense: int = 0
    cut: int = 0
    blocks: int = 0
    two_four: int = 0
    single: int = 0


@dataclass(frozen=True)
class KernelCounts:
    """What pruning saves in a network, by kernel.

    Attributes:
        block: Filters and consecutive inputs of a block, for the kernel that skips blocks.
        modules: By module name, for each module that multiplies.
        elsewhere: Layers with zeros whose work another module does, and which count as dense there
            (``nn.MultiheadAttention`` uses its ``out_proj`` so).
    """

    block: tuple[int, int]
    modules: dict[str, KernelWork] = field(repr=False)
    elsewhere: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, KernelWork]:
        """By part of the network, see :attr:`mmsw.analysis.complexity.Complexity.parts`."""
        parts: dict[str, KernelWork] = {}
        for name, work in self.modules.items():
            part = part_of(name)
            parts[part] = parts.get(part, KernelWork()) + work
        return parts

    @property
    def total(self) -> KernelWork:
        """Of the network."""
        return sum(self.modules.values(), KernelWork())

    def to_dict(self) -> dict[str, object]:
        """Plain data for a JSON file."""
        return dict(
            block=list(self.block),
            elsewhere=list(self.elsewhere),
            total=asdict(self.total),
            parts={name: asdict(work) for name, work in self.parts.items()},
            modules={name: asdict(work) for name, work in self.modules.items()},
        )
