"""A program as a graph of ``torch.export``, with sizes that stay open where they should."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch._dynamo.exc import UserError, UserErrorType
from torch.export import Dim, ExportedProgram

from mmsw.errors import UsageError
from mmsw.wording import short

from .blocks import with_plain_blocks
from .model_copy import sharing_copy
from .pooling import ExactPooling
from .program import Program

# Names of the axes of an image that may stay open, and their largest size.
_BATCH, _HEIGHT, _WIDTH = 'batch', 'height', 'width'
_LARGEST = {_BATCH: 1024, _HEIGHT: 16384, _WIDTH: 16384}


def open_axes(program: Program, dynamic: bool) -> dict[int, str]:
    """Which axes of the image have no fixed size, and their names."""
    if not dynamic:
        return {}
    sides = {2: _HEIGHT, 3: _WIDTH}
    return {0: _BATCH, **sides} if program.batched else sides


@torch.no_grad()
def capture(
    program: Program, example: Tensor, dynamic: bool, *, plain: bool = False
) -> ExportedProgram:
    """The graph of a program, in operators of PyTorch.

    Args:
        program: In evaluation mode.
        example: An image ``[B, C, H, W]`` on the device of the program.
        dynamic: Whether batch (if the program takes one), height and width stay open.
        plain: Whether the graph is for other runtimes: blocks then get the forms of
            :mod:`~mmsw.deploy.export.blocks`.

    Raises:
        UsageError: If PyTorch cannot make a graph of it, or not for open sizes.
    """
    axes = open_axes(program, dynamic)
    if 0 in axes and len(example) == 1:  # PyTorch takes a size of 1 for a fixed one
        example = example.expand(2, -1, -1, -1).contiguous()
    sizes = {axis: _dim(name, program.smallest) for axis, name in axes.items()}
    if plain:
        program = with_plain_blocks(sharing_copy(program))
    with warnings.catch_warnings(), ExactPooling():
        warnings.simplefilter('ignore')  # what it says concerns those who wrote the model
        try:
            graph = torch.export.export(
                program, (example,), dynamic_shapes=(sizes,) if sizes else None
            )
        except UsageError as error:
            raise UsageError(f'the {program.description} cannot be exported: {error}') from error
        except Exception as error:  # it fails in many ways
            raise UsageError(_refusal(program, example, dynamic, error)) from error
    return graph


def _refusal(program: Program, example: Tensor, dynamic: bool, error: Exception) -> str:
    sizes = 'any size' if dynamic else f'{example.shape[2]} x {example.shape[3]} pixels'
    text = f'the {program.description} cannot be exported for images of {sizes}: '
    if isinstance(error, UserError) and error.error_type is UserErrorType.CONSTRAINT_VIOLATION:
        return text + 'a part of it takes some sizes only; export it for one size'
    return text + f'PyTorch makes no graph of it ({short(error)})'


def _dim(name: str, smallest: int) -> Dim:
    return Dim(name, min=1 if name == _BATCH else smallest, max=_LARGEST[name])
