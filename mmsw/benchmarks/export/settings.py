"""What a run of the benchmark of exported files covers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mmsw.deploy.export.formats import FORMATS
from mmsw.deploy.export.precisions import PRECISIONS

from ..sizes import TimingSettings

_DEMO = 'work_dirs/demo'


class Subject(NamedTuple):
    """A trained model.

    Attributes:
        config: Its config file.
        checkpoint: Its checkpoint.
    """

    config: str
    checkpoint: str

    @property
    def name(self) -> str:
        """That of the config."""
        return Path(self.config).stem


class Form(NamedTuple):
    """What a model is exported to.

    Attributes:
        format: ``'onnx'``, ``'openvino'`` or ``'torch'``.
        precision: ``'float32'``, ``'float16'``, ``'bfloat16'`` or ``'int8'``.
    """

    format: str
    precision: str

    def __str__(self) -> str:
        return f'{self.format} {self.precision}'


# Those of `make demo` and `make demo-detection`.
DEMO = (
    Subject('configs/demo/upernet_sw_mini_scenes.py', f'{_DEMO}/finetune/iter_900.pth'),
    Subject('configs/demo/mask_rcnn_sw_mini_scenes.py', f'{_DEMO}/detection/iter_600.pth'),
)
FORMS = tuple(
    Form(format, precision)
    for format in FORMATS
    for precision in PRECISIONS
    if (format, precision) != ('torch', 'int8')
)


@dataclass(frozen=True)
class ExportSettings(TimingSettings):
    """What a run covers, beyond :class:`TimingSettings`, of which it has ``threads`` and ``only``.

    Attributes:
        forms: Formats and precisions.
        rounds: Most samples of a row.
        least: Fewest samples of a row.
        budget: Seconds to spend on a row beyond its fewest samples.
    """

    forms: tuple[Form, ...] = FORMS
    rounds: int = 31
    least: int = 5
    budget: float = 4.0


PRESETS = {
    'default': ExportSettings(),
    'quick': ExportSettings(
        forms=(
            Form('onnx', 'float32'),
            Form('onnx', 'int8'),
            Form('openvino', 'float32'),
            Form('torch', 'float32'),
        ),
        rounds=7,
        least=3,
        budget=1.0,
    ),
}
