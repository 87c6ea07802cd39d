"""The formats of exported files: their names, and the packages that write and run them."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from mmsw.errors import UsageError
from mmsw.install_hint import how_to_install


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        suffix: How names of such files end.
        runtime: What runs them, in words.
        writes: Packages that writing needs, beside torch.
        runs: Packages that running needs.
    """

    suffix: str
    runtime: str
    writes: tuple[str, ...]
    runs: tuple[str, ...]


FORMATS = {
    'onnx': Format('.onnx', 'onnxruntime', ('onnx', 'onnxscript'), ('onnxruntime',)),
    'openvino': Format('.xml', 'OpenVINO', ('onnx', 'onnxscript', 'openvino'), ('openvino',)),
    'torch': Format('.pt2', 'torch', (), ()),
}


def format_of(path: str | os.PathLike[str]) -> str:
    """The format that the name of a file tells.

    Raises:
        UsageError: If it tells none.
    """
    suffix = Path(path).suffix.lower()
    for name, kind in FORMATS.items():
        if kind.suffix == suffix:
            return name
    endings = ', '.join(f'{kind.suffix} ({name})' for name, kind in FORMATS.items())
    raise UsageError(f'{os.fspath(path)} is no exported file by its name: expected {endings}')


def is_exported(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an exported one by its name."""
    return Path(path).suffix.lower() in {kind.suffix for kind in FORMATS.values()}


def check_packages(packages: tuple[str, ...], what: str) -> None:
    """Check that packages are installed; nothing is imported.

    Args:
        packages: Their names.
        what: What needs them, for the message.

    Raises:
        UsageError: If one is missing; says how to install them.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f'{what} needs {" and ".join(packages)}, and {" and ".join(missing)} '
            f'{"is" if len(missing) == 1 else "are"} not installed: {how_to_install("export")}'
        )
