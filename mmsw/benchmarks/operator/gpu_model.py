"""What the CUDA kernels should take on a GPU, from their own work and the GPU's published rates.

A model, not a measurement: it counts what the kernels of ``mmsw/ops/csrc/cuda`` do per tile and
divides by rates. Four bounds are compared: multiply-adds, values from shared memory, instructions,
bytes of memory. The largest one binds; the time is that bound over ``EFFICIENCY``, for what
barriers and latencies cost, and the launches. ``EFFICIENCY`` and the instructions beside arithmetic
were read off an H100 with its profiler.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

DIRECTIONS = ('forward', 'grad_input', 'grad_weight', 'folded')
EFFICIENCY = 0.7
LAUNCH_S = 4e-6
_LAUNCHES = {'grad_weight': 3}  # others: the blocks, then the tiles
_BYTES = {'float32': 4, 'float16': 2, 'bfloat16': 2}
_WARP = 32
# As in csrc/cuda: outputs of a thread, slots that are added at a time, and slots of a warp.
_ROWS, _COLUMNS = 8, 2
_TOGETHER = {3: 2, 5: 1}
_WARP_SLOTS = {3: 3, 5: 1}
# Instructions beside arithmetic and shared loads: per value of a band, per output, for slots that
# are added at a time, and for an arm on a tile. All warps of a weight gradient do the latter.
_PER_LOADED, _PER_OUTPUT, _PER_CALL = 8, 4, 25
_PER_ARM, _PER_ARM_OF_GRAD_WEIGHT = 900, 1600


class Gpu(NamedTuple):
    """Published facts of a GPU.

    Attributes:
        name: Part of what ``torch.cuda.get_device_name()`` says.
        processors: Streaming multiprocessors.
        clock_hz: Boost clock.
        lanes: float32 multiply-adds per cycle and multiprocessor.
        bytes_per_s: Memory bandwidth.
    """

    name: str
    processors: int
    clock_hz: float
    lanes: int
    bytes_per_s: float

    @property
    def multiply_adds_per_s(self) -> float:
        """Peak of float32; sums are in float32 for half precision, too."""
        return self.processors * self.lanes * self.clock_hz


# The first one whose words are all in a device's name counts.
GPUS = (
    Gpu('H200', 132, 1.98e9, 128, 4.8e12),
    Gpu('H100 PCIe', 114, 1.755e9, 128, 2.0e12),
    Gpu('H100', 132, 1.98e9, 128, 3.35e12),
    Gpu('A100 80GB PCIe', 108, 1.41e9, 64, 1.935e12),
    Gpu('A100 80GB', 108, 1.41e9, 64, 2.039e12),
    Gpu('A100', 108, 1.41e9, 64, 1.555e12),
)


class Layer(NamedTuple):
    """One layer: batch, channels, side of its square map, M and N."""

    batch: int
    channels: int
    size: int
    big_kernel: int
    small_kernel: int


class Expected(NamedTuple):
    """What the model says of one direction of one layer.

    Attributes:
        multiply_adds: Those of the cross form that can meet the map.
        bytes: Maps that are read and written, once each.
        seconds: The time to expect.
        bound: ``'arithmetic'``, ``'shared memory'``, ``'instructions'`` or ``'memory'``.
        share_of_peak: Of the float32 multiply-adds per second.
        shared_loads: Instructions that read shared memory, per multiply-add instruction.
    """

    multiply_adds: int
    bytes: int
    seconds: float
    bound: str
    share_of_peak: float
    shared_loads: float


class _Work(NamedTuple):
    """Work of a thread: multiply-adds, shared loads, their cycles, other instructions."""

    products: float = 0.0
    loads: float = 0.0
    shared_cycles: float = 0.0
    others: float = 0.0

    def times(self, factor: float) -> _Work:
        return _Work(*(factor * value for value in self))

    def plus(self, other: _Work) -> _Work:
        return _Work(*(one + two for one, two in zip(self, other, strict=True)))


def find_gpu(device_name: str) -> Gpu | None:
    """The entry of :data:`GPUS` for a device, or ``None``."""
    for gpu in GPUS:
        if all(word.lower() in device_name.lower() for word in gpu.name.split()):
            return gpu
    return None


def expected(
    device_name: str, layer: Layer, direction: str, dtype: str = 'float32'
) -> Expected | None:
    """What the kernels should take.

    Args:
        device_name: As ``torch.cuda.get_device_name()`` says it.
        layer: A layer whose N is 3 or 5.
        direction: One of :data:`DIRECTIONS`.
        dtype: ``'float32'``, ``'float16'`` or ``'bfloat16'``.

    Returns:
        The figures, or ``None`` for a GPU, a side or a type that the model does not know.

    Raises:
        ValueError: If the direction is unknown.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f'direction must be one of {DIRECTIONS}, got {direction!r}')
    gpu = find_gpu(device_name)
    if gpu is None or layer.small_kernel not in _TOGETHER or dtype not in _BYTES:
        return None
    tile = _tile(layer.size)
    images = min(max(1, _WARP * _ROWS * _COLUMNS // tile**2), layer.batch)
    patches = tile**2 // (_ROWS * _COLUMNS)
    warps = -(-patches * images // _WARP)
    work = _Work()
    for _ in range(2):
        for slots in _visible(layer, tile):
            work = work.plus(_arm(layer, direction, tile, slots))
    if direction != 'folded':
        same_band = direction != 'grad_input'
        work = work.plus(_identity(layer, direction, tile, same_band).times(-(-layer.size // tile)))
    # per column of tiles, per group of images, per channel: every warp does the same
    work = work.times(-(-layer.size // tile) * -(-layer.batch // images) * layer.channels * warps)
    cycles = dict(
        arithmetic=work.products / (gpu.lanes / _WARP),
        **{
            'shared memory': work.shared_cycles,
            'instructions': (work.products + work.loads + work.others) / 4,
        },
    )
    moved = _maps(direction) * layer.batch * layer.channels * layer.size**2 * _BYTES[dtype]
    seconds = {name: value / (gpu.processors * gpu.clock_hz) for name, value in cycles.items()}
    seconds['memory'] = moved / gpu.bytes_per_s
    bound = max(seconds, key=seconds.get)
    total = seconds[bound] / EFFICIENCY + LAUNCH_S * _LAUNCHES.get(direction, 2)
    useful = _multiply_adds(layer, direction)
    return Expected(
        useful,
        moved,
        total,
        bound,
        useful / total / gpu.multiply_adds_per_s,
        work.loads / work.products,
    )


def section(device_name: str | None, rows: Iterable[dict]) -> list[str]:
    """Lines of Markdown: the model beside what was measured of the ``cuda`` backend.

    Args:
        device_name: The GPU of the run, or ``None``.
        rows: Rows of the benchmark.

    Returns:
        Nothing without rows of the ``cuda`` backend on a GPU that the model knows.
    """
    if device_name is None or find_gpu(device_name) is None:
        return []
    body = list(_compared(device_name, rows))
    if not body:
        return []
    return [
        '', '## Model of the cuda kernels', '',
        f'What the kernels should take on {find_gpu(device_name).name}, by their own work and '
        f'published rates, at {EFFICIENCY:.0%} of the bound that binds.', '',
        '| C, map, M/N, batch | pass | measured ms | model ms | measured / model | bound '
        '| model, share of peak |',
        '| --- | --- | ---: | ---: | ---: | --- | ---: |',
        *body,
    ]  # fmt: skip


def _compared(device_name: str, rows: Iterable[dict]) -> Iterator[str]:
    passes = {'forward': DIRECTIONS[:1], 'forward+backward': DIRECTIONS[:3]}
    for row in rows:
        if row['name'] != 'mmsw cuda' or row['sweep'] or row['mode'] not in passes:
            continue
        layer = Layer(*(row[key] for key in ('batch', *Layer._fields[1:])))
        found = [expected(device_name, layer, each, row['dtype']) for each in passes[row['mode']]]
        if None in found:
            continue
        model = 1e3 * sum(each.seconds for each in found)
        share = sum(each.share_of_peak * each.seconds for each in found) * 1e3 / model
        bounds = ', '.join(dict.fromkeys(each.bound for each in found))
        yield (
            f'| {layer.channels}, {layer.size} x {layer.size}, {layer.big_kernel}/'
            f'{layer.small_kernel}, {layer.batch} | {row["mode"]} | {row["median_ms"]:.3f} '
            f'| {model:.3f} | {row["median_ms"] / model:.2f} | {bounds} | {share:.0%} |'
        )


def table(device_names: Iterable[str], layers: Iterable[Layer], dtype: str = 'float32') -> str:
    """Markdown: a row per GPU, layer and direction, for the documentation."""
    lines = [
        '| GPU | C, map, M/N, batch | pass | GMAC | MB | model ms | bound | share of peak |',
        '| --- | --- | --- | ---: | ---: | ---: | --- | ---: |',
    ]
    layers = list(layers)
    for name in device_names:
        for layer in layers:
            for direction in DIRECTIONS:
                found = expected(name, layer, direction, dtype)
                if found is None:
                    continue
                lines.append(
                    f'| {name} | {layer.channels}, {layer.size} x {layer.size}, '
                    f'{layer.big_kernel}/{layer.small_kernel}, {layer.batch} | {direction} '
                    f'| {found.multiply_adds / 1e9:.2f} | {found.bytes / 1e6:.0f} '
                    f'| {found.seconds * 1e3:.3f} | {found.bound} | {found.share_of_peak:.0%} |'
                )
    return '\n'.join(lines)


def _tile(size: int) -> int:
    return next((tile for tile in (8, 16) if size <= tile), 32)


def _groups(layer: Layer) -> int:
    return -(-layer.big_kernel // layer.small_kernel)


def _visible(layer: Layer, tile: int) -> list[int]:
    """Slots of an arm that can meet the map, for every tile along it."""
    side, first = layer.small_kernel, -(layer.big_kernel // 2)
    counts = []
    for row in range(0, layer.size, tile):
        last = min(row + tile, layer.size) - 1
        counts.append(
            sum(
                row + first + slot * side < layer.size and last + first + (slot + 1) * side > 0
                for slot in range(_groups(layer))
            )
        )
    return counts


def _added(side: int, slots: int, direction: str) -> _Work:
    """Neighbouring slots of one patch: rows are read in pairs of values, two cycles each."""
    rows = _ROWS + side * slots - 1
    pairs = rows * (side + 1) / 2
    if direction == 'grad_weight':
        pairs += _ROWS
        packs = 0.0
    else:
        packs = slots * -(-(side**2) // 4)
    products = _ROWS * _COLUMNS * side**2 * slots
    return _Work(products, pairs + packs, 2 * pairs + packs, _PER_CALL)


def _arm(layer: Layer, direction: str, tile: int, slots: int) -> _Work:
    """One arm on one tile, per thread of one that has a patch."""
    side, patches = layer.small_kernel, tile**2 / (_ROWS * _COLUMNS)
    together = (_WARP_SLOTS if direction == 'grad_weight' else _TOGETHER)[side]
    full, rest = divmod(slots, together)
    work = _added(side, together, direction).times(full)
    work = work.plus(_added(side, 1, direction).times(rest))
    values = (tile + slots * side - 1) * (tile + side - 1)
    if direction == 'grad_weight':
        values += tile**2
    outputs = 0 if direction == 'grad_weight' else _ROWS * _COLUMNS
    setup = _PER_ARM_OF_GRAD_WEIGHT if direction == 'grad_weight' else _PER_ARM
    return work.plus(_moved(values / patches, outputs)).plus(_Work(others=setup))


def _identity(layer: Layer, direction: str, tile: int, same_band: bool) -> _Work:
    side, patches = layer.small_kernel, tile**2 / (_ROWS * _COLUMNS)
    values = tile**2 if direction == 'grad_weight' else 0 if same_band else (tile + side - 1) ** 2
    outputs = 0 if direction == 'grad_weight' else _ROWS * _COLUMNS
    return _added(side, 1, direction).plus(_moved(values / patches, outputs))


def _moved(values: float, outputs: int) -> _Work:
    """Values that go to shared memory, and outputs that leave the registers."""
    return _Work(0, 0, values, _PER_LOADED * values + _PER_OUTPUT * outputs)


def _maps(direction: str) -> int:
    return {'folded': 2}.get(direction, 4)


def _multiply_adds(layer: Layer, direction: str) -> int:
    """Those of the cross form whose taps meet the map."""
    side, first, size = layer.small_kernel, -(layer.big_kernel // 2), layer.size
    along = sum(max(0, size - abs(first + tap)) for tap in range(_groups(layer) * side))
    across = sum(size - abs(n - side // 2) for n in range(side) if abs(n - side // 2) < size)
    small = 0 if direction == 'folded' else across**2
    return layer.batch * layer.channels * (2 * along * across + small)
