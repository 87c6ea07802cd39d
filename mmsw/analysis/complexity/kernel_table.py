"""What pruning saves, by kernel, as text for a terminal."""

from __future__ import annotations

from mmsw.text_table import text_table, wrapped
from mmsw.wording import MAC_UNITS, listed, mac_power

from .count import Complexity
from .kernel_counts import KernelWork


def kernel_table(result: Complexity, per_module: bool = False) -> str:
    """Multiply-adds by kernel, per part and in all, and what each kernel is.

    Args:
        result: Counts with :attr:`~mmsw.analysis.complexity.Complexity.kernels`.
        per_module: A row for every module instead of one for every part.
    """
    counts = result.kernels
    rows = dict(counts.modules if per_module else counts.parts, total=counts.total)
    power = mac_power(result.macs_dense)
    sides = ' x '.join(map(str, counts.block))
    head = ['After pruning', 'dense', 'cut', '', f'blocks {sides}', '', '2:4', '', 'single', '']
    cells = [[name or '(itself)', *_cells(work, power)] for name, work in rows.items()]
    notes = [
        f'multiply-adds in {MAC_UNITS[power]}, and what is left of dense. Cut: a dense kernel, '
        'once filters and input channels that are zero as a whole are cut out. Blocks: a kernel '
        f'that skips blocks of {sides} zeros (filters x inputs). 2:4: hardware that halves the '
        'work of layers with two zeros in each four weights. Single: every zero skipped, the '
        'least that any kernel can do',
        _remark(counts.total),
    ]
    if counts.elsewhere:
        notes.append(
            f'counted as dense, since other modules compute with them: {listed(counts.elsewhere)}'
        )
    return '\n'.join([text_table(head, cells), *map(wrapped, notes)])


def _cells(work: KernelWork, power: int) -> list[str]:
    cells = [f'{work.dense / 10**power:,.3f}']
    for left in (work.cut, work.blocks, work.two_four, work.single):
        cells += [f'{left / 10**power:,.3f}', f'{_share(left, work.dense):.1%}']
    return cells


def _remark(total: KernelWork) -> str:
    if total.single == total.dense:
        return 'nothing is pruned, so no kernel saves anything'
    if total.cut == total.dense:
        return (
            'Dense kernels, which PyTorch runs by default, save nothing: no filter and no input '
            'channel of an ordinary layer is zero as a whole'
        )
    return (
        'Dense kernels, which PyTorch runs by default, save nothing until the filters are really '
        'cut out, which changes the shapes of the layers'
    )


def _share(left: int, dense: int) -> float:
    return left / dense if dense else 1.0
