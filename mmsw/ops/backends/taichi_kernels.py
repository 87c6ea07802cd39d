"""The Taichi kernels behind :mod:`.taichi_backend`; importing this file imports Taichi.

Every kernel works on flat arrays, so that one source serves Taichi's CPU and CUDA archs. Three
facts about its CPU code generator shape them:

* Taichi's indices are 32-bit; a base masked to 30 bits plus a constant cannot wrap, and only then
  does LLVM see that the unrolled columns of a tile are neighbours and loads them as one vector;
* the argument ``one`` is 1, unknown to the compiler: loads of tiles that overlap, one column apart,
  stay apart instead of being taken to pieces that are shared;
* the loop over the blocks of a list ends at a sentinel, not at a count: LLVM would otherwise
  vectorize across the blocks, which scatters every load.
"""

# No `from __future__ import annotations` here: Taichi reads the annotations of a kernel.
from collections.abc import Callable
from functools import cache

import taichi as ti

TILE_ROWS = 4
INDEX_LIMIT = 1 << 30  # elements of the largest array
INDEX_MASK = INDEX_LIMIT - 1
_TABLE = ti.types.ndarray(dtype=ti.i32, ndim=1)


@ti.func
def _add_row(
    out: ti.template(), start: ti.i32, source: ti.template(), begin: ti.i32, length: ti.i32
):
    for x in range(length):
        out[start + x] = out[start + x] + source[begin + x]


@cache
def shift_add(dtype: object) -> Callable[..., None]:
    """Kernel of ``shift_add`` for a Taichi dtype; not compiled before use."""
    array = ti.types.ndarray(dtype=dtype, ndim=1)

    @ti.kernel
    def kernel(
        conv_out: array,
        shift: _TABLE,
        identity: _TABLE,
        wide: array,
        tall: array,
        small: array,
        planes: ti.i32,
        channels: ti.i32,
        groups: ti.i32,
        reps: ti.i32,
        height: ti.i32,
        width: ti.i32,
        margin: ti.i32,
    ):
        """One work item per row of the three outputs."""
        for job in range(planes * height):
            plane, y = job // height, job % height
            channel = plane % channels
            row = width + 2 * margin
            size = (height + 2 * margin) * row
            source = plane * groups * size
            start = job * width
            for x in range(width):
                wide[start + x] = ti.cast(0, dtype)
                tall[start + x] = ti.cast(0, dtype)
                small[start + x] = ti.cast(0, dtype)
            for group in range(groups):
                here = source + group * size
                for rep in range(reps):
                    at = (channel * groups + group) * 2 * reps + rep
                    across = shift[at]
                    first = ti.min(ti.max(0, across), width)
                    last = ti.max(first, ti.min(width, width + 2 * margin + across))
                    line = here + (y + margin) * row + first - across
                    _add_row(wide, start + first, conv_out, line, last - first)
                    line_y = y - shift[at + reps]
                    if 0 <= line_y < height + 2 * margin:
                        _add_row(tall, start, conv_out, here + line_y * row + margin, width)
            for rep in range(reps):
                group = identity[channel * reps + rep] - channel * groups
                line = source + group * size + (y + margin) * row + margin
                _add_row(small, start, conv_out, line, width)

    return kernel


@cache
def shift_add_grad(dtype: object) -> Callable[..., None]:
    """Kernel of the gradient of ``shift_add`` for a Taichi dtype."""
    array = ti.types.ndarray(dtype=dtype, ndim=1)

    @ti.kernel
    def kernel(
        wide: array,
        tall: array,
        small: array,
        shift: _TABLE,
        identity: _TABLE,
        grad: array,
        planes: ti.i32,
        channels: ti.i32,
        groups: ti.i32,
        reps: ti.i32,
        height: ti.i32,
        width: ti.i32,
        margin: ti.i32,
    ):
        """One work item per row of the gradient, which gathers what it was added to."""
        for job in range(planes * groups * (height + 2 * margin)):
            row = width + 2 * margin
            y = job % (height + 2 * margin) - margin
            group = job // (height + 2 * margin)
            plane = group // groups
            channel = plane % channels
            group = channel * groups + group % groups
            source = plane * height * width
            start = job * row
            inside = 0 <= y < height
            for x in range(row):
                grad[start + x] = ti.cast(0, dtype)
            for rep in range(reps):
                across = shift[group * 2 * reps + rep]
                first = ti.min(ti.max(0, across), width)
                last = ti.max(first, ti.min(width, row + across))
                if inside:
                    line = source + y * width + first
                    _add_row(grad, start + first - across, wide, line, last - first)
                line_y = y + margin + shift[group * 2 * reps + reps + rep]
                if 0 <= line_y < height:
                    _add_row(grad, start + margin, tall, source + line_y * width, width)
                if inside and identity[channel * reps + rep] == group:
                    _add_row(grad, start + margin, small, source + y * width, width)

    return kernel


@cache
def _tile_functions(columns: int) -> tuple[Callable, Callable]:
    """``load`` and ``store`` of neighbouring columns, as many as a tile holds."""

    @ti.func
    def load(source: ti.template(), start: ti.i32):
        at = start & INDEX_MASK
        return ti.Vector([source[at + c] for c in ti.static(range(columns))])

    @ti.func
    def store(out: ti.template(), start: ti.i32, value: ti.template()):
        at = start & INDEX_MASK
        for c in ti.static(range(columns)):
            out[at + c] = value[c]

    return load, store


@cache
def _add_block(side: int, columns: int) -> Callable:
    """Adds to the four rows of a tile what one block makes of the map."""
    load, _ = _tile_functions(columns)

    @ti.func
    def add_block(
        a0: ti.template(),
        a1: ti.template(),
        a2: ti.template(),
        a3: ti.template(),
        source: ti.template(),
        base: ti.i32,
        row: ti.i32,
        weight: ti.template(),
        tap: ti.i32,
        one: ti.i32,
    ):
        for i in ti.static(range(TILE_ROWS + side - 1)):
            for s in ti.static(range(side)):
                value = load(source, base + i * row + s * one)
                if ti.static(0 <= i < side):
                    a0 += weight[tap + i * side + s] * value
                if ti.static(0 <= i - 1 < side):
                    a1 += weight[tap + (i - 1) * side + s] * value
                if ti.static(0 <= i - 2 < side):
                    a2 += weight[tap + (i - 2) * side + s] * value
                if ti.static(0 <= i - 3 < side):
                    a3 += weight[tap + (i - 3) * side + s] * value

    return add_block


@cache
def correlate(dtype: object, side: int, columns: int) -> Callable[..., None]:
    """Kernel that correlates a map with blocks of ``side`` x ``side`` taps.

    Args:
        dtype: Taichi dtype.
        side: Rows and columns of a block; the tiles are unrolled over them.
        columns: Neighbouring columns that a tile holds.
    """
    array = ti.types.ndarray(dtype=dtype, ndim=1)
    load, store = _tile_functions(columns)
    add_block = _add_block(side, columns)

    @ti.kernel
    def kernel(
        source: array,
        weight: array,
        blocks: _TABLE,
        place: _TABLE,
        out: array,
        planes: ti.i32,
        channels: ti.i32,
        slots: ti.i32,
        height: ti.i32,
        width: ti.i32,
        above: ti.i32,
        left: ti.i32,
        add: ti.i32,
        one: ti.i32,
    ):
        """``out`` (+)= the padded map, correlated with the listed blocks of its channel.

        One work item per tile of 4 rows. The map has ``above`` and ``left`` zeros around it, and
        its size and that of ``out`` are rounded up to whole tiles (rows of ``out`` are not).
        """
        tiles_y = (height + TILE_ROWS - 1) // TILE_ROWS
        tiles_x = (width + columns - 1) // columns
        for job in range(planes * tiles_y * tiles_x):
            plane = job // (tiles_y * tiles_x)
            y = job // tiles_x % tiles_y * TILE_ROWS
            x = job % tiles_x * columns
            channel = plane % channels
            row = tiles_x * columns + 2 * left
            origin = (plane * (tiles_y * TILE_ROWS + 2 * above) + y) * row + x
            start = (plane * height + y) * tiles_x * columns + x
            step = tiles_x * columns
            a0 = ti.Vector.zero(dtype, columns)
            a1 = ti.Vector.zero(dtype, columns)
            a2 = ti.Vector.zero(dtype, columns)
            a3 = ti.Vector.zero(dtype, columns)
            entry = channel * (slots + 1)
            while True:
                slot = blocks[entry]
                if slot < 0:
                    break
                entry += 1
                down, right = place[2 * slot], place[2 * slot + 1]
                if (
                    y + down + TILE_ROWS + side - 1 > above
                    and y + down < above + height
                    and x + right + columns + side - 1 > left
                    and x + right < left + width
                ):
                    base = origin + down * row + right
                    tap = (channel * slots + slot) * side * side
                    add_block(a0, a1, a2, a3, source, base, row, weight, tap, one)
            for r, rows in ti.static(enumerate((a0, a1, a2, a3))):
                if y + r < height:
                    if add:
                        rows += load(out, start + r * step)
                    store(out, start + r * step, rows)

    return kernel


@cache
def correlate_grad(dtype: object, side: int, columns: int) -> Callable[..., None]:
    """Kernel of the gradient of every block that is wanted; arguments as for the correlation."""
    array = ti.types.ndarray(dtype=dtype, ndim=1)
    load, store = _tile_functions(columns)

    @ti.kernel
    def kernel(
        source: array,
        grad: array,
        wanted: _TABLE,
        place: _TABLE,
        out: array,
        batch: ti.i32,
        channels: ti.i32,
        slots: ti.i32,
        height: ti.i32,
        width: ti.i32,
        above: ti.i32,
        left: ti.i32,
        one: ti.i32,
    ):
        """Gradient of every block, as ``columns`` partial sums per tap.

        One work item per channel, block and row of taps; it adds in a fixed order. ``wanted`` is 1
        or, for a block whose gradient is left at zero, 0. ``grad`` is zero in the columns that
        round its width up.
        """
        for job in range(channels * slots * side):
            i = job % side
            slot = job // side % slots
            channel = job // (side * slots)
            down, right = place[2 * slot] + i, place[2 * slot + 1]
            tiles_x = (width + columns - 1) // columns
            step = tiles_x * columns
            row = step + 2 * left
            rows = (height + TILE_ROWS - 1) // TILE_ROWS * TILE_ROWS + 2 * above
            first = ti.max(0, left - right - side + 1) // columns
            last = ti.min(tiles_x, (ti.max(0, left + width - right) + columns - 1) // columns)
            a0 = ti.Vector.zero(dtype, columns)
            a1 = ti.Vector.zero(dtype, columns)
            a2 = ti.Vector.zero(dtype, columns)
            a3 = ti.Vector.zero(dtype, columns)
            a4 = ti.Vector.zero(dtype, columns)
            for b in range(batch * wanted[channel * slots + slot]):
                plane = b * channels + channel
                for y in range(ti.max(0, above - down), ti.min(height, above + height - down)):
                    for tile in range(first, last):
                        g = load(grad, (plane * height + y) * step + tile * columns)
                        base = (plane * rows + y + down) * row + right + tile * columns
                        for s, lanes in ti.static(enumerate((a0, a1, a2, a3, a4))):
                            if ti.static(s < side):
                                lanes += g * load(source, base + s * one)
            for s, lanes in ti.static(enumerate((a0, a1, a2, a3, a4))):
                if ti.static(s < side):
                    store(out, (job * side + s) * columns, lanes)

    return kernel
