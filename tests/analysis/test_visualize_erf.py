"""tools/visualize_erf.py and what it calls, on networks of a few channels."""

from __future__ import annotations

import json
import re
import runpy
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmsw.analysis import effective_receptive_field
from mmsw.analysis.receptive_field import Square, high_contribution_squares, log_scores
from mmsw.analysis.receptive_field.plot import _pooled, draw_receptive_fields
from mmsw.apis import UsageError, init_model, load_config
from mmsw.apis.backbone import build_backbone, draw_weights, fill_backbone
from mmsw.apis.receptive_field import (
    Contender,
    FieldSettings,
    measure_receptive_fields,
    receptive_field_text,
    write_json,
)
from mmsw.apis.square_images import normalised, read_squares
from mmsw.checkpoint import CheckpointError
from mmsw.demo.compose import TRAIN_PHOTOS, VAL_PHOTOS, photo_files
from mmsw.errors import DataError
from mmsw.json_file import read_json

ROOT = Path(__file__).resolve().parents[2]
SEGMENTOR = ROOT / 'tests' / 'data' / 'upernet_mini_ade20k.py'
DETECTOR = ROOT / 'tests' / 'data' / 'retinanet_mini_coco.py'
SIZE = 128  # a map of 4 x 4, whose centre sees pixel 64
PLAIN = """default_scope = 'mmengine'
model = dict(
    data_preprocessor=dict(mean=[10.0, 20.0, 30.0], std=[1.0, 2.0, 4.0], bgr_to_rgb=True),
    backbone=dict(type='torch.nn.Conv2d', in_channels=3, out_channels=16, kernel_size=8, stride=8),
)
"""


@pytest.fixture(autouse=True)
def _tools_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three images of noise, of different shapes."""
    folder = tmp_path / 'photos'
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number, shape in enumerate([(50, 40), (96, 96), (30, 120)]):
        pixels = noise.integers(0, 256, (*shape, 3), np.uint8)
        cv2.imwrite(str(folder / f'{number}.png'), pixels)
    return folder


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A config whose backbone is one convolution, which has no ``init_weights``."""
    path = tmp_path / 'plain.py'
    path.write_text(PLAIN)
    return path


def tool(*arguments: object) -> int:
    """Runs the tool in this process; returns the exit code."""
    main = runpy.run_path(str(ROOT / 'tools/visualize_erf.py'))['main']
    return main([str(argument) for argument in arguments])


def field_of(config: Path, images: Path, checkpoint: Path | None = None, **more) -> np.ndarray:
    settings = FieldSettings(size=more.pop('size', SIZE), **more)
    (measured,) = measure_receptive_fields(
        [Contender('one', config, checkpoint)], [images], settings
    )
    return measured.scores


def test_networks_of_the_command_line() -> None:
    contenders = runpy.run_path(str(ROOT / 'tools/visualize_erf.py'))['contenders']
    words = ['a/x.py', 'b/run=1/y.py', 'run.pth', 'ours=z', 'best.PT', 'SW-T v2, 1=c/x.py']
    assert contenders(words) == [
        Contender('x', 'a/x.py'),
        Contender('y', 'b/run=1/y.py', 'run.pth'),
        Contender('ours', 'z', 'best.PT'),
        Contender('SW-T v2, 1', 'c/x.py'),
    ]
    for wrong in (['run.pth'], ['a.py', 'run.pth', 'other.pth']):
        with pytest.raises(UsageError, match=f'checkpoint {wrong[-1]} has no config before it'):
            contenders(wrong)
    with pytest.raises(UsageError, match=r'=x\.py has no name before the ='):
        contenders(['=x.py'])


def test_tool_writes_picture_squares_and_table(tmp_path: Path, images: Path, capsys) -> None:
    picture, figures = tmp_path / 'erf.svg', tmp_path / 'erf.json'
    code = tool(
        f'ours={SEGMENTOR}', DETECTOR, '--images', images, '--num-images', 2, '--size', SIZE,
        '--output', picture, '--json', figures, '--seed', 3, '--open-branches',
    )  # fmt: skip
    assert code == 0
    printed = capsys.readouterr().out
    content = read_json(figures, 'receptive_field')
    assert [network['name'] for network in content['networks']] == ['ours', 'retinanet_mini_coco']
    assert (content['size'], content['part'], content['stage']) == (SIZE, 'positive', -1)
    ours = content['networks'][0]
    assert (ours['seed'], ours['num_images'], ours['checkpoint']) == (3, 2, None)
    scores = field_of(SEGMENTOR, images, num_images=2, seed=3, open_scales=True)
    for kind, changed in (('scores', scores), ('log_scores', log_scores(scores))):
        squares = high_contribution_squares(changed)
        assert ours['squares'][kind] == {str(s): q._asdict() for s, q in squares.items()}
        row = '  '.join(f'{square.area_ratio:.1%}' for square in squares.values())
        assert row.replace(' ', '') in printed.replace(' ', '')
    drawn = picture.read_text(encoding='utf-8')
    assert drawn.count('<image') == 3  # two maps and the scale
    assert f'wrote {picture}' in printed
    assert 'ours: 2 images in' in printed


def test_the_measurement_is_that_of_the_function(images: Path, plain: Path) -> None:
    """Resized to a square, colours swapped, normalised by hand."""
    cfg = load_config(plain)
    torch.manual_seed(5)
    net = build_backbone(cfg)
    prepared = []
    for name in ('0.png', '1.png', '2.png'):
        pixels = cv2.imread(str(images / name))
        pixels = cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)[..., ::-1]
        pixels = (pixels.astype(np.float32) - [10, 20, 30]) / [1, 2, 4]
        prepared.append(torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1))
    expected = effective_receptive_field(net, prepared)
    found = field_of(plain, images, seed=5)
    np.testing.assert_array_equal(found, expected.map)
    assert not found[: SIZE // 2].any()  # patches of 8 pixels
    assert found[SIZE // 2 : SIZE // 2 + 8, SIZE // 2 : SIZE // 2 + 8].any()
    absolute = field_of(plain, images, seed=5, part='absolute')
    assert (absolute >= found).all()
    assert absolute.sum() > found.sum()


def test_images_of_one_channel_and_without_a_mean(images: Path) -> None:
    (grey,) = read_squares([images / '0.png'], 8, 5, channels=1)
    expected = cv2.resize(cv2.imread(str(images / '0.png'), cv2.IMREAD_GRAYSCALE), (8, 8),
                          interpolation=cv2.INTER_CUBIC)  # fmt: skip
    assert np.abs(grey[..., 0].astype(int) - expected.astype(int)).max() <= 1
    raw = normalised(grey, Config(dict(model=dict())))
    assert raw.shape == (1, 8, 8)
    assert raw.max() > 100
    one = dict(data_preprocessor=dict(mean=[100.0], std=[50.0]))  # as of mmpretrain
    assert torch.allclose(normalised(grey, Config(one)), (raw - 100) / 50)
    one['data_preprocessor']['bgr_to_rgb'] = True
    assert torch.allclose(normalised(grey, Config(one)), (raw - 100) / 50)
    with pytest.raises(UsageError, match='of 2 channels, the network takes 1'):
        normalised(grey, Config(dict(data_preprocessor=dict(mean=[1, 2], std=[1, 2]))))
    with pytest.raises(UsageError, match='must be lists of a number per channel, got 0'):
        normalised(grey, Config(dict(data_preprocessor=dict(mean=0, std=1))))
    with pytest.raises(UsageError, match='images of 4 channels'):
        read_squares([images], 8, 5, channels=4)


def test_seed_of_random_weights(images: Path) -> None:
    first, again, other = (field_of(SEGMENTOR, images, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    state = torch.get_rng_state()
    field_of(SEGMENTOR, images)
    assert torch.equal(state, torch.get_rng_state())


def test_weights_are_drawn_as_for_a_training(caplog) -> None:
    """Of a ResNet the last norm of every block is zero, which the constructor leaves at one."""
    cfg = Config(
        dict(
            default_scope='mmseg',
            model=dict(backbone=dict(type='ResNet', depth=18, base_channels=8)),
        )
    )
    net = build_backbone(cfg)
    assert (net.layer1[0].norm2.weight == 1).all()
    draw_weights(net)
    assert (net.layer1[0].norm2.weight == 0).all()
    assert not caplog.records


@pytest.fixture
def trained(tmp_path: Path) -> dict[str, Path]:
    """The same weights in files of several kinds."""
    torch.manual_seed(9)
    with pytest.warns(UserWarning, match='random'):
        model = init_model(SEGMENTOR)
    for norm in model.backbone.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean)
    state, files = model.state_dict(), {}
    contents = {
        'run': {'state_dict': state, 'meta': {}},
        'wrapped': {'state_dict': {f'module.{key}': value for key, value in state.items()}},
        'backbone': model.backbone.state_dict(),
    }
    model.backbone.switch_to_deploy()
    contents['folded'] = {'state_dict': model.state_dict()}
    for name, content in contents.items():
        files[name] = tmp_path / f'{name}.pth'
        torch.save(content, files[name])
    return files


def test_checkpoints_of_every_kind(trained: dict[str, Path], images: Path) -> None:
    fields = {name: field_of(SEGMENTOR, images, path) for name, path in trained.items()}
    for name in ('wrapped', 'backbone'):
        assert np.array_equal(fields[name], fields['run']), name
    scale = fields['run'].max()
    np.testing.assert_allclose(fields['folded'] / scale, fields['run'] / scale, atol=1e-4)
    assert not np.allclose(field_of(SEGMENTOR, images) / scale, fields['run'] / scale, atol=1e-2)


def test_checkpoint_of_a_plain_backbone(tmp_path: Path, plain: Path) -> None:
    net = build_backbone(load_config(plain))
    wanted = {name: torch.rand_like(value) for name, value in net.state_dict().items()}
    for prefix in ('', 'backbone.'):
        path = tmp_path / f'{prefix}plain.pth'
        torch.save({f'{prefix}{name}': value for name, value in wanted.items()}, path)
        fill_backbone(net, path)
        assert all(torch.equal(net.state_dict()[name], value) for name, value in wanted.items())
        nn.init.zeros_(net.weight)


def test_checkpoints_that_do_not_fit(
    tmp_path: Path, trained: dict[str, Path], plain: Path, images: Path, data_dir: Path
) -> None:
    for path, message in (
        (trained['run'], 'run.pth does not fit the Conv2d of the config'),
        (tmp_path / 'none.pth', 'checkpoint .*none.pth does not exist'),
    ):
        with pytest.raises((UsageError, CheckpointError), match=message):
            field_of(plain, images, path)
    with pytest.raises(CheckpointError, match='of another network'):
        field_of(SEGMENTOR, images, data_dir / 'backbone_v2_mini_checkpoint.pth')
    torch.save({'backbone.weight': torch.zeros(16, 3, 8, 8)}, tmp_path / 'half.pth')
    with pytest.raises(CheckpointError, match='no bias'):
        field_of(plain, images, tmp_path / 'half.pth')


def test_closed_branches_are_told(images: Path) -> None:
    options = {'model.backbone.layer_scale_init_value': 1e-6}
    texts, outside = [], []
    for opened in (False, True):
        settings = FieldSettings(SIZE, open_scales=opened, cfg_options=options)
        measured = measure_receptive_fields([Contender('net', SEGMENTOR)], [images], settings)
        notes = receptive_field_text(measured).rpartition('\n\n')[2]
        texts.append(' '.join(notes.split()))
        scores = measured[0].scores
        middle = slice(SIZE // 2 - 31, SIZE // 2 + 32)  # what stem and downsampling reach
        outside.append(1 - scores[middle, middle].sum() / scores.sum())
    assert texts[0].startswith('net: random weights, and 4 scales keep its residual branches')
    assert '--open-branches' in texts[0]
    assert texts[1] == 'net: random weights, 4 scales that begin closed are set to 1'
    assert outside[0] < 1e-6
    assert outside[1] > 1e-4


def test_norms_are_calibrated(images: Path) -> None:
    """In a network of batch norms alone, the branches gain what the norms of a training give."""
    settings = FieldSettings(SIZE, calibrate=True)
    networks = [Contender('net', SEGMENTOR)]
    measured = measure_receptive_fields(networks, [images], settings)
    note = receptive_field_text(measured).splitlines()[-1]
    assert note == 'net: random weights, 20 batch norms have the statistics of the images'
    plain = field_of(SEGMENTOR, images)
    side = measured[0].squares['scores'][0.99].side
    assert side > high_contribution_squares(plain)[0.99].side


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--size', 64], '64 x 64 give a map of 2 x 2, at least 3 x 3 is needed'),
        (['--size', 32, '--calibrate'], 'measured at 32 x 32: .*more than 1 value per channel'),
        (['--size', 0], 'size must be at least 1, got 0'),
        (['--num-images', 0], 'num_images must be at least 1'),
        (['--stage', 4], r'no output 4; it gives a tuple with 4 entries'),
        (['--device', 'nowhere'], "device 'nowhere' cannot be used"),
        (['--output', 'erf.jpg'], r'must end with .svg or .png'),
        (['--output', 'no/folder/erf.svg'], 'folder of no/folder/erf.svg does not exist'),
        (['--json', 'no/folder/erf.json'], 'does not exist'),
        (['--images', 'no/photos'], 'no/photos does not exist'),
        (['--cfg-options', 'model.backbone.archi=tiny'], 'archi'),
        ([SEGMENTOR], "two networks are called 'upernet_mini_ade20k': write NAME=CONFIG"),
        (['nothing.py'], 'config file nothing.py does not exist'),
    ],
)
def test_what_is_refused(
    options: list, message: str, images: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [SEGMENTOR, *options]
    if '--images' not in options:
        given += ['--images', images]
    if '--size' not in options:
        given += ['--size', SIZE]
    if '--output' not in options:
        given += ['--output', tmp_path / 'erf.svg']
    assert tool(*given) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert len(error.splitlines()) == 1
    assert re.search(message, error)
    assert not (tmp_path / 'erf.svg').exists()


def test_images_that_cannot_be_read(images: Path, tmp_path: Path, capsys) -> None:
    (images / '1.png').write_bytes((images / '1.png').read_bytes()[:500])
    with pytest.raises(DataError, match=r'1\.png is cut off'):
        field_of(SEGMENTOR, images)
    empty = tmp_path / 'empty'
    empty.mkdir()
    with pytest.raises(UsageError, match='has no image'):
        field_of(SEGMENTOR, empty)
    assert field_of(SEGMENTOR, images, num_images=1).any()  # the damaged one is not read


def test_config_without_a_backbone_or_toolbox(tmp_path: Path, images: Path) -> None:
    config = tmp_path / 'none.py'
    config.write_text("default_scope = 'mmengine'\nmodel = dict(type='Nothing')\n")
    with pytest.raises(UsageError, match='has no backbone'):
        field_of(config, images)
    if find_spec('mmpretrain') is None:
        config.write_text(
            "default_scope = 'mmpretrain'\nmodel = dict(backbone=dict(type='ConvNeXt'))\n"
        )
        with pytest.raises(UsageError, match='mmpretrain, which cannot be imported'):
            field_of(config, images)


def test_progress_is_told_now_and_then(images: Path, plain: Path, monkeypatch) -> None:
    monkeypatch.setattr('mmsw.apis.receptive_field._INTERVAL', 0.0)
    lines: list[str] = []
    settings = FieldSettings(SIZE, calibrate=True)
    measure_receptive_fields([Contender('net', plain)], [images], settings, lines.append)
    assert [line.split(',')[0] for line in lines[:2]] == [
        'net: 1 of 3 images',
        'net: 2 of 3 images',
    ]
    assert lines[2].startswith('net: 3 images in ')


def test_shipped_photographs() -> None:
    pytest.importorskip('skimage', reason='skimage: absent; the photographs need it')
    files = photo_files()
    assert len(files) == len({*TRAIN_PHOTOS, *VAL_PHOTOS})
    assert all(path.is_file() for path in files)


def test_picture(tmp_path: Path) -> None:
    pytest.importorskip('matplotlib', reason='matplotlib: absent; the picture needs it')
    scores = np.random.default_rng(0).gamma(0.3, size=(301, 260))
    cells = _pooled(scores)
    assert cells.shape == (101, 87)
    assert cells[0, 0] == pytest.approx(scores[:3, :3].mean())
    assert cells[-1, -1] == pytest.approx(scores[300:, 258:].mean())
    for name in ('a.svg', 'b.svg', 'c.png'):
        draw_receptive_fields({f'net {n}': scores for n in range(4)}, tmp_path / name)
    assert (tmp_path / 'a.svg').read_bytes() == (tmp_path / 'b.svg').read_bytes()
    assert cv2.imread(str(tmp_path / 'c.png')).std() > 10


def test_json_of_a_config_in_memory(tmp_path: Path, images: Path, plain: Path) -> None:
    cfg = load_config(plain)
    settings = FieldSettings(SIZE, num_images=1)
    measured = measure_receptive_fields([Contender('net', cfg)], [images], settings)
    write_json(measured, settings, tmp_path / 'erf.json')
    (network,) = json.loads((tmp_path / 'erf.json').read_text())['networks']
    assert network['config'] == str(plain)
    square = network['squares']['scores']['0.5']
    assert Square(**square) == high_contribution_squares(measured[0].scores)[0.5]
