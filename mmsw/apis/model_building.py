"""Building the model of a config: what its constructors refuse is said in one line."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb

from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from mmsw.errors import MmswError, UsageError

from .config import config_name, forget_handed_over

# What is said where a config does not fit a constructor. Others of these types are faults of the
# code, and keep their traceback.
_OF_THE_CONFIG = {
    KeyError: re.compile(r'is not in the .*registry|must contain the key "type"'),
    TypeError: re.compile(
        r'unexpected keyword argument|missing \d+ required|multiple values for|must be a str or'
    ),
    AttributeError: re.compile("'ConfigDict' object has no attribute"),
}
_ALWAYS = (ValueError, AssertionError, ImportError)


def build_model(cfg: Config) -> nn.Module:
    """The model of a config as its constructors leave it; the scope must be set.

    No file is read that its backbone is to start from.

    Raises:
        UsageError: If a constructor refuses what the config says.
    """
    model = copy.deepcopy(cfg.model)
    forget_handed_over(model)
    with refusals_explained(cfg):
        return MODELS.build(model)


@contextmanager
def refusals_explained(cfg: Config, part: str = 'model') -> Iterator[None]:
    """Inside, what a constructor refuses becomes one line that names the config.

    Args:
        cfg: The config.
        part: What is built.

    Raises:
        UsageError: Instead of such an error, which is its cause.
    """
    try:
        yield
    except MmswError:
        raise
    except (*_ALWAYS, *_OF_THE_CONFIG) as error:
        if not _is_of_the_config(error):
            raise
        raise UsageError(
            f'the {part} of {config_name(cfg)} cannot be built: {_text(error)}'
        ) from error


def _is_of_the_config(error: Exception) -> bool:
    if isinstance(error, _ALWAYS):
        return True
    return any(
        isinstance(error, kind) and said.search(str(error)) for kind, said in _OF_THE_CONFIG.items()
    )


def _text(error: Exception) -> str:
    """What it says, in one line; an assertion may say nothing, and is quoted."""
    text = error.args[0] if isinstance(error, KeyError) else str(error)
    if text:
        return ' '.join(str(text).split())
    place = extract_tb(error.__traceback__)[-1]
    return f'{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {place.line}'
