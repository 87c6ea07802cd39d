"""A published checkpoint, rewritten once in this project's own form."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mmsw
from mmsw.checkpoint import (
    CheckpointError,
    NetworkShape,
    fill_network,
    load_checkpoint_file,
    save_checkpoint_file,
    to_state_dict,
    training_arguments,
)
from mmsw.models import ShiftWiseNet
from mmsw.sparsity import SparsityReport, report


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did.

    Attributes:
        shape: The network in the file.
        used: Names of the written tensors that the file had.
        derived: Names that the file lacks and that follow from it: patterns and channel order from
            the seed of the release. They are written.
        missing: Names that the network has and the file cannot tell: the output norms. They are
            left out.
        unused: Names in the file that are neither of the backbone nor of its classifier.
        sparsity: Densities of the network.
    """

    shape: NetworkShape
    used: list[str]
    derived: list[str]
    missing: list[str]
    unused: list[str]
    sparsity: SparsityReport

    def __str__(self) -> str:
        def listed(names: list[str]) -> str:
            return ''.join(f'\n  {name}' for name in names) or ' none'

        return (
            f'network: {self.shape}\nkeys used: {len(self.used)}, derived: {len(self.derived)}\n'
            f'keys unused: {len(self.unused)}{listed(self.unused)}\n'
            f'keys missing: {len(self.missing)}{listed(self.missing)}\n{self.sparsity}'
        )


def convert_checkpoint(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    trust: bool = False,
    big_kernels: Sequence[int] | None = None,
    ghost_ratio: float = 0.23,
    num_reps: int = 4,
) -> ConversionReport:
    """Write the backbone (and classifier) of a checkpoint in this project's form.

    The written file names its architecture, and holds the masks, the shift patterns and the channel
    order, so it depends on no random generator any more.

    Args:
        src: Published file, or one of this project.
        dst: File to write; replaced if it exists.
        trust: Unpickle whatever ``src`` asks for, see :func:`mmsw.checkpoint.load_checkpoint_file`.
        big_kernels: Focus length per stage; by default what the file's own training arguments say,
            else 51, 49, 47, 13.
        ghost_ratio: Share of channels that bypass the operator.
        num_reps: Repetitions of the shift pattern; by default what the training arguments say, else
            4.

    Returns:
        What was used, left and found.

    Raises:
        CheckpointError: If the file cannot be read or does not fit the network it seems to hold.
    """
    src, dst = Path(src), Path(dst)
    if dst.is_dir():
        raise CheckpointError(f'{dst} is a folder; name the file to write')
    if src.exists() and dst.exists() and dst.samefile(src):
        raise CheckpointError(f'{dst} is the source itself; choose another destination')
    checkpoint = load_checkpoint_file(src, trust)
    state = to_state_dict(checkpoint, str(src))
    shape = NetworkShape.of(state)
    arguments = training_arguments(checkpoint)
    if big_kernels is None:
        big_kernels = tuple(arguments.get('kernel_size', (51, 49, 47, 13, None))[:-1])
    settings = dict(
        arch=dict(depths=list(shape.depths), dims=list(shape.dims)),
        version=shape.version,
        big_kernels=list(big_kernels),
        small_kernel=shape.small_kernel,
        ghost_ratio=ghost_ratio,
        num_paths=shape.num_paths,
        num_reps=arguments.get('N_rep', num_reps),
    )
    net = ShiftWiseNet(**settings)
    missing, unused = fill_network(net, checkpoint, str(src))
    head = {key: tensor for key, tensor in state.items() if key.startswith('head.')}
    norms = [key for key in missing if key.startswith('norm')]
    written = {key: tensor for key, tensor in net.state_dict().items() if key not in norms}
    save_checkpoint_file(
        {
            'meta': {'mmsw_version': mmsw.__version__, 'source': src.name, 'backbone': settings},
            'state_dict': {**written, **head},
        },
        dst,
    )
    return ConversionReport(
        shape,
        used=[key for key in {**written, **head} if key in state],
        derived=[key for key in missing if key not in norms],
        missing=norms,
        unused=[key for key in unused if key not in head],
        sparsity=report(net),
    )
