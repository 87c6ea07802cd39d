"""What state dicts of the networks look like: the authors' names, and this project's for them.

The names of both releases live in this file only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from .shape import PATH, NetworkShape
from .slak_shape import KERNEL, SLaKShape

_SAVED = r'(?:weight|weight_orig|parametrizations\.weight\.original)$'
_MERGED_SLAK = re.compile(r'\.large_kernel\.lkb_reparam\.')


@dataclass(frozen=True)
class Layout:
    """Names of one kind of network.

    Attributes:
        backbone: Name of its class.
        kind: What it is, for messages.
        shape: Reads what kind of network a state dict is of.
        kernel: Matches the names of its large or small kernels in this project.
        anywhere: Matches a weight that only it has, in whichever names, behind the prefix.
        renames: Applied in order to every name of a release; the first match renames.
        example: A name in the release.
        choose: Arguments that make a network fit a file.
    """

    backbone: str
    kind: str
    shape: type[NetworkShape] | type[SLaKShape]
    kernel: re.Pattern[str]
    anywhere: re.Pattern[str]
    renames: tuple[tuple[re.Pattern[str], str], ...]
    example: str
    choose: str

    def renamed(self, key: str) -> str:
        """A name of the release in this project."""
        for pattern, replacement in self.renames:
            key, count = pattern.subn(replacement, key)
            if count:
                break
        return key

    def kernels(self, names: Iterable[str]) -> list[str]:
        """Those of some names in this project that are kernels of the operator."""
        return [name for name in names if self.kernel.match(name)]


def _renames(*pairs: tuple[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
    common = (
        (r'\.pwconv1\.(?:1\.)?(weight|bias|mask)$', r'.pointwise_conv1.\1'),
        (r'\.pwconv2\.(?:0\.)?(weight|bias|mask)$', r'.pointwise_conv2.\1'),
        (r'^norm\.', 'head.norm.'),
    )
    return tuple((re.compile(pattern), new) for pattern, new in (*pairs, *common))


SHIFT_WISE = Layout(
    backbone='ShiftWiseNet',
    kind='shift-wise network',
    shape=NetworkShape,
    kernel=PATH,
    anywhere=re.compile(
        r'^((?:.*?\.)?)stages\.\d+\.\d+\.(?:shift_wise\.paths\.\d+|'
        rf'large_kernel\.LoRAs?(?:\.\d+)?)\.{_SAVED}'
    ),
    renames=_renames(
        (r'\.large_kernel\.LoRAs\.(\d+)\.(weight|mask)$', r'.shift_wise.paths.\1.\2'),
        (r'\.large_kernel\.LoRA\.(weight|mask)$', r'.shift_wise.paths.0.\1'),
        (r'\.large_kernel\.bn_lora1\.', '.shift_wise.norm_h.'),
        (r'\.large_kernel\.bn_lora2\.', '.shift_wise.norm_v.'),
        (r'\.large_kernel\.bn_small\.', '.shift_wise.norm_i.'),
        (r'\.act\.1\.(gamma|beta)$', r'.grn.\1'),
        (r'\.pwconv2\.2\.', '.norm2.'),
    ),
    example='stages.0.0.large_kernel.LoRAs.0.weight',
    choose='arch, version, big_kernels, small_kernel, num_reps and ghost_ratio',
)
SLAK = Layout(
    backbone='SLaK',
    kind='SLaK network',
    shape=SLaKShape,
    kernel=KERNEL,
    anywhere=re.compile(
        r'^((?:.*?\.)?)stages\.\d+\.\d+\.large_kernel\.(?:vertical|horizontal|square|small|LoRA1|'
        rf'LoRA2|lkb_origin|small_conv)\.conv\.{_SAVED}'
    ),
    renames=_renames(
        (r'\.large_kernel\.LoRA1\.bn\.', '.large_kernel.vertical.norm.'),
        (r'\.large_kernel\.LoRA1\.conv\.', '.large_kernel.vertical.conv.'),
        (r'\.large_kernel\.LoRA2\.bn\.', '.large_kernel.horizontal.norm.'),
        (r'\.large_kernel\.LoRA2\.conv\.', '.large_kernel.horizontal.conv.'),
        (r'\.large_kernel\.lkb_origin\.bn\.', '.large_kernel.square.norm.'),
        (r'\.large_kernel\.lkb_origin\.conv\.', '.large_kernel.square.conv.'),
        (r'\.large_kernel\.small_conv\.bn\.', '.large_kernel.small.norm.'),
        (r'\.large_kernel\.small_conv\.conv\.', '.large_kernel.small.conv.'),
    ),
    example='stages.0.0.large_kernel.LoRA1.conv.weight',
    choose='arch, width_factor, big_kernels, small_kernel and decomposed',
)
LAYOUTS = SHIFT_WISE, SLAK


def layout_of(names: Iterable[str]) -> Layout | None:
    """The layout that names of this project, without prefix, are of; ``None``: of none."""
    names = list(names)
    return next((layout for layout in LAYOUTS if layout.kernels(names)), None)


def is_merged_slak(names: Iterable[str]) -> bool:
    """Whether the authors' code has merged the branches of a SLaK network."""
    return any(map(_MERGED_SLAK.search, names))
