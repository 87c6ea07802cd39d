"""Writes own_vN_*.pth and own_vN_expected.npz: python tests/own_format/write_own_files.py FOLDER

N is the format that this mmsw writes. Those in tests/data were written once, by version 0.1.0
before its release (torch 2.13.0, mmengine 0.10.7). Once a version of mmsw is released, never write
those of its format again: they stand for the files that users have.

- converted: what tools/convert_checkpoint.py writes;
- training: a training run after 2 of 4 iterations, with DynamicSparsityHook;
- scope: the same with masks on ordinary layers (``scope=``), single weights pruned;
- folded: the weights of the training file after ``switch_to_deploy()``, which folded the shift-wise
  layers alone when the files of formats 1 and 2 were written;
- blocks_v1, blocks_v2: a backbone of each generation whose blocks are folded whole.

``expected`` has, by file: ``NAME_output``, what the network makes of ``picture()``; for runs also
the masks (``NAME_masks``, packed bits), and the same after the run went on to its end
(``NAME_end_output``, ``NAME_end_masks``).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.append(str(Path(__file__).resolve().parents[1]))  # as pytest has it
from own_format_helpers import BLOCKS, DIM, HOOKS, SAVED_AT, own_config, own_file, picture
from tiny_run import tiny_net

from mmsw.apis import build_runner, init_model
from mmsw.apis.convert import convert_checkpoint
from mmsw.checkpoint import (
    FORMAT,
    load_checkpoint_file,
    network_record,
    save_checkpoint_file,
)
from mmsw.sparsity import masks


def outputs(model: nn.Module) -> np.ndarray:
    """What a model or backbone makes of the picture."""
    with torch.no_grad():
        made = model.eval()(picture())
    return (made[-1] if isinstance(made, (list, tuple)) else made).numpy()


def packed_masks(model: nn.Module) -> np.ndarray:
    """All masks of a model, in the order of their names."""
    found = masks(model)
    return np.packbits(torch.cat([found[name].flatten() for name in sorted(found)]).numpy())


@torch.no_grad()
def folded_backbone(**settings) -> nn.Module:
    """A folded backbone in which no tensor of any layer is that of a layer left out."""
    torch.manual_seed(0)
    net = tiny_net(**settings).eval()
    for tensor in net.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point():
            tensor.mul_(10)
    for stage in net.stages:
        for path in stage[0].shift_wise.paths:
            path.set_mask(torch.rand(len(path.weight), 1, 1, 1) > 0.3)
    return net.switch_to_deploy()


def write_folded(net: nn.Module, path: Path) -> None:
    """Write a folded network as a file."""
    record = {'mmsw': network_record(net)}
    save_checkpoint_file({'meta': record, 'state_dict': net.state_dict()}, path)


def write(folder: Path) -> None:
    """Write all files into an existing folder."""
    expected = {}
    for name in HOOKS:
        # A relative work folder: mmengine writes its name into the file.
        before = Path.cwd()
        with tempfile.TemporaryDirectory() as temporary:
            os.chdir(temporary)
            try:
                runner = build_runner(own_config(name), 'run')
                runner.train()
                saved = load_checkpoint_file(f'run/iter_{SAVED_AT}.pth', trust=True)
            finally:
                os.chdir(before)
        saved['message_hub']['runtime_info']['last_ckpt'] = f'run/iter_{SAVED_AT}.pth'
        save_checkpoint_file(saved, own_file(folder, name, FORMAT))
        expected[f'{name}_end_output'] = outputs(runner.model)
        expected[f'{name}_end_masks'] = packed_masks(runner.model)
        runner.model.load_state_dict(saved['state_dict'])
        expected[f'{name}_output'] = outputs(runner.model)
        expected[f'{name}_masks'] = packed_masks(runner.model)
        assert (expected[f'{name}_masks'] != expected[f'{name}_end_masks']).any()

    model = init_model(own_config(''), own_file(folder, 'training', FORMAT), deploy=True)
    write_folded(model, own_file(folder, 'folded', FORMAT))
    expected['folded_output'] = outputs(model)
    for name, settings in BLOCKS.items():
        net = folded_backbone(**settings)
        write_folded(net, own_file(folder, name, FORMAT))
        expected[f'{name}_output'] = outputs(net)

    torch.manual_seed(0)
    net = tiny_net(output_norm=False).eval()
    for stage in net.stages:
        for path in stage[0].shift_wise.paths:
            path.set_mask(torch.rand(len(path.weight), 1, 1, 1) > 0.3)
    tables = ('.mask', '.channel_order', '.pattern.')
    state = {k: v for k, v in net.state_dict().items() if not any(t in k for t in tables)}
    state |= {'head.norm.weight': torch.ones(DIM), 'head.norm.bias': torch.zeros(DIM)}
    state |= {'head.weight': torch.randn(5, DIM), 'head.bias': torch.zeros(5)}
    arguments = argparse.Namespace(kernel_size=[*net.big_kernels, 3], N_rep=4)
    published = folder / 'published.pth'
    save_checkpoint_file({'model': state, 'args': arguments}, published)
    convert_checkpoint(published, own_file(folder, 'converted', FORMAT))
    published.unlink()
    expected['converted_output'] = outputs(net)
    np.savez_compressed(folder / f'own_v{FORMAT}_expected.npz', **expected)


if __name__ == '__main__':
    write(Path(sys.argv[1]).absolute())
