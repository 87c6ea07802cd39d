"""What an exported file tells of itself: all that running it needs beside the file.

It is one JSON text inside the file: ``metadata_props`` of an ONNX model, ``rt_info`` of an OpenVINO
model, both under :data:`KEY`; :data:`EXTRA_FILE` in a ``.pt2`` file.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from typing import Any

from mmsw.errors import DataError, UsageError
from mmsw.json_file import from_json_text, json_text
from mmsw.version import __version__

from .image_rule import ImageRule

KEY = 'mmsw'
EXTRA_FILE = 'mmsw.json'
TASKS = {'segmentation': 'mmseg', 'detection': 'mmdet'}
_KIND = 'exported_program'


@dataclass(frozen=True)
class ExportMetadata:
    """What is stored in an exported file.

    Attributes:
        task: ``'segmentation'`` or ``'detection'``.
        classes: Names.
        palette: RGB colour of each class.
        image: How an image becomes the input.
        settings: What the runtime needs to make results of the outputs.
        outputs: Names, in order.
        batched: Whether the program takes more than one image at once.
        size: Height and width of a file for one size; ``None`` where any will do.
        smallest: Least height and width.
        precision: ``'float32'``, ``'float16'``, ``'bfloat16'`` or ``'int8'``.
        config: Name of the config.
        model: Type of the model, and of its backbone.
        density: Share of the weights with masks that the model kept before it was folded; ``None``
            for a model without masks.
        mmsw: Version that wrote the file.
    """

    task: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, ...], ...]
    image: ImageRule
    settings: dict[str, Any]
    outputs: tuple[str, ...]
    batched: bool = True
    size: tuple[int, int] | None = None
    smallest: int = 1
    precision: str = 'float32'
    config: str = ''
    model: str = ''
    density: float | None = None
    mmsw: str = field(default=__version__)

    @property
    def scope(self) -> str:
        """The toolbox whose data sample results are: ``'mmseg'`` or ``'mmdet'``."""
        return TASKS[self.task]

    @property
    def dataset_meta(self) -> dict[str, Any]:
        """Classes and palette as the models of :func:`mmsw.apis.init_model` have them."""
        return {'classes': self.classes, 'palette': list(self.palette)}

    def to_text(self) -> str:
        """One line of JSON."""
        return json_text(_KIND, dataclasses.asdict(self))

    @classmethod
    def from_text(cls, text: str, source: object) -> ExportMetadata:
        """Read what :meth:`to_text` wrote.

        Args:
            text: The text.
            source: The file that it is from, for messages.

        Raises:
            DataError: If it is something else, or of a newer version.
        """
        try:
            content = from_json_text(text, _KIND, f'the metadata of {source}')
            found = _built(cls, content, '')
            if found.task not in TASKS:
                raise UsageError(f'task is {found.task!r}, expected one of {", ".join(TASKS)}')
        except UsageError as error:
            raise DataError(f'{source} cannot be used: {error}; {_cure(text)}') from error
        return found


def _cure(text: str) -> str:
    """What helps where a text cannot be used."""
    again = 'export it again with tools/export.py'
    try:
        version = json.loads(text)['mmsw']
    except (ValueError, KeyError, TypeError):
        return again
    if version == __version__:
        return again
    return f'mmsw {version} wrote it, and this is {__version__}: install that one, or {again}'


def _built(kind: Any, value: Any, where: str) -> Any:
    """A value of JSON as what an annotation says."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        fitting = [part for part in inside if _may_be(part, value)]
        return _built(fitting[0] if fitting else inside[0], value, where)
    if dataclasses.is_dataclass(kind):
        return _built_class(kind, value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise _unfit(where, value, 'a list')
        kinds = [inside[0]] * len(value) if inside[-1] is Ellipsis else inside
        if len(kinds) != len(value):
            raise _unfit(where, value, f'a list of {len(kinds)}')
        return tuple(_built(part, item, where) for part, item in zip(kinds, value, strict=True))
    if not _may_be(kind, value):
        raise _unfit(where, value, f'of the type {getattr(kind, "__name__", kind)}')
    return float(value) if kind is float else value


def _built_class(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _unfit(where, value, 'an object of JSON')
    hints = typing.get_type_hints(kind)
    needed = {item.name for item in dataclasses.fields(kind) if item.default is dataclasses.MISSING}
    problems = [f'no {name}' for name in sorted(needed - value.keys())]
    problems += [f'an unknown {name}' for name in sorted(value.keys() - hints.keys())]
    if problems:
        part = f' {where}' if where else ''
        raise UsageError(f'its metadata{part} has {", ".join(problems)}')
    place = f'{where}.' if where else ''
    return kind(**{name: _built(hints[name], item, place + name) for name, item in value.items()})


def _may_be(kind: Any, value: Any) -> bool:
    """Whether JSON's type of a value is that of an annotation."""
    origin = typing.get_origin(kind) or kind
    if origin is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is tuple:
        return isinstance(value, (list, tuple))
    if dataclasses.is_dataclass(kind):
        return isinstance(value, dict)
    return isinstance(value, origin)


def _unfit(where: str, value: Any, expected: str) -> UsageError:
    return UsageError(f'its metadata has {where}={str(value)[:60]!r}, expected {expected}')
