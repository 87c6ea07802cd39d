"""A change of torch's or numpy's generators is noticed where a file relies on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mmsw.apis.convert import convert_checkpoint
from mmsw.apis.sparsity_analysis import analyze_sparsity
from mmsw.checkpoint import CheckpointError, load_pretrained, load_release_checkpoint, published
from mmsw.models import ShiftWiseNet
from mmsw.ops import pattern as drawing


def test_this_environment_draws_what_the_published_networks_have() -> None:
    patterns, orders = published.drawn_digests()
    assert patterns == published.PATTERNS
    assert orders == published.ORDERS


@pytest.mark.parametrize('version', ['v1', 'v2'])
@pytest.mark.parametrize('arch', ['tiny', 'small', 'base'])
def test_every_layer_of_the_published_networks_is_known(version: str, arch: str) -> None:
    with torch.device('meta'):
        net = ShiftWiseNet(arch, version)
    for stage in net.stages:
        layer = stage[0].shift_wise
        pattern = layer.pattern
        sizes = (pattern.big_kernel, pattern.small_kernel, pattern.channels, pattern.num_reps)
        assert sizes in published.PATTERNS
        assert (layer.in_channels, layer.num_active) in published.ORDERS


def test_the_probes_are_golden(data_dir: Path) -> None:
    """They come from the authors' code."""
    tables = np.load(data_dir / 'shift_add_49_3_r4.npz')
    names = ('big_kernel', 'small_kernel', 'num_channels', 'num_reps')
    assert tuple(int(tables[name]) for name in names) == published.PROBE_PATTERN
    found = published.digest(*(torch.from_numpy(tables[n]) for n in ('shift_hv', 'identity_index')))
    assert found == published.PATTERNS[published.PROBE_PATTERN]
    layer = np.load(data_dir / 'module_v2_49_3.npz')
    order = torch.from_numpy(np.concatenate([layer['rep_index'], layer['ghost_index']]))
    assert (len(order), len(layer['rep_index'])) == published.PROBE_ORDER
    assert published.digest(order) == published.ORDERS[published.PROBE_ORDER]


@pytest.fixture
def other_generator(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A library whose generator draws something else, as a later version of it might."""
    if request.param == 'torch':
        draw = torch.randperm
        monkeypatch.setattr(torch, 'randperm', lambda n, **kwargs: draw(n, **kwargs).flip(0))
    else:

        class Other(np.random.RandomState):
            def choice(self, *args, **kwargs):
                return super().permutation(args[0])[-args[1] :]

        monkeypatch.setattr(np.random, 'RandomState', Other)
    forget_draws()
    yield request.param
    forget_draws()


def forget_draws() -> None:
    """What was drawn once is kept; a new process, with another library, would draw anew."""
    published._probes.cache_clear()
    drawing._draw.cache_clear()


READERS: dict[str, Callable[[Path, Path], object]] = {
    'network': lambda source, _: load_pretrained(
        ShiftWiseNet(dict(depths=[1, 1, 2, 1], dims=[16, 24, 32, 40])), source
    ),
    'state dict': lambda source, _: load_release_checkpoint(source),
    'convert': lambda source, folder: convert_checkpoint(source, folder / 'own.pth'),
    'analyse': lambda source, _: analyze_sparsity(source),
}


@pytest.mark.parametrize('other_generator', ['torch', 'numpy'], indirect=True)
@pytest.mark.parametrize('reader', READERS)
def test_a_file_without_tables_is_refused(
    other_generator: str, reader: str, published_path: Path, tmp_path: Path
) -> None:
    """Of any size: this one is not among the published ones."""
    with pytest.raises(CheckpointError) as caught:
        READERS[reader](published_path, tmp_path)
    message = f'holds no tables of its layers, and the generator of {other_generator} draws other'
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(published_path))
    assert len(str(caught.value).splitlines()) == 1


def test_a_converted_file_is_read_with_any_generator(
    published_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build_net
) -> None:
    convert_checkpoint(published_path, tmp_path / 'own.pth')
    expected = build_net(str(published_path)).state_dict()
    draw = torch.randperm
    monkeypatch.setattr(torch, 'randperm', lambda n, **kwargs: draw(n, **kwargs).flip(0))
    forget_draws()
    found = build_net(str(tmp_path / 'own.pth')).state_dict()
    forget_draws()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


@pytest.mark.parametrize('table', ['pattern.shift_hv', 'channel_order'])
def test_tables_of_another_file_are_refused(table: str) -> None:
    """In a network of a published size, which a file with other tables has filled before."""
    net = ShiftWiseNet(dict(depths=[1, 1, 1, 1], dims=[80, 160, 320, 640]))
    tables = ('.pattern.', '.channel_order')
    state = {k: t for k, t in net.state_dict().items() if not any(part in k for part in tables)}
    published.check_drawn(net.state_dict(), state, 'file.pth')
    own = net.state_dict()
    key = f'stages.2.0.shift_wise.{table}'
    own[key] = own[key].roll(1, 0)
    message = rf'^file\.pth holds no tables .* {key} of the network is not the one'
    with pytest.raises(CheckpointError, match=message):
        published.check_drawn(own, state, 'file.pth')
    published.check_drawn(own, {**state, key: own[key]}, 'file.pth')  # it brings them
