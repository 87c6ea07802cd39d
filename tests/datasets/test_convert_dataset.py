"""tools/convert_dataset.py: what it writes, prints and refuses, whatever the format."""

from __future__ import annotations

import runpy
from pathlib import Path, PurePosixPath

import pytest
from convert_helpers import coco_of, converted, files_in, save_json, save_picture
from data_helpers import BOX, ROOT, SQUARE, annotation, images_of

from mmsw.datasets.convert import conversion
from mmsw.datasets.convert.annotated import AnnotatedImage
from mmsw.datasets.convert.parts import divide
from mmsw.errors import UsageError

SIZE = 64, 96


@pytest.fixture(scope='module')
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images with an object each, in COCO format."""
    folder = tmp_path_factory.mktemp('coco')
    for index in range(10):
        save_picture(folder / f'{index}.jpg', *SIZE)
    things = [annotation(index, index) for index in range(10)]
    content = dict(images=images_of(*[SIZE] * 10), annotations=things, categories=SQUARE)
    save_json(folder / 'all.json', content)
    return folder


def call(*arguments: object) -> int:
    main = runpy.run_path(str(ROOT / 'tools' / 'convert_dataset.py'))['main']
    return main([str(argument) for argument in arguments])


def own_data_of(printed: str) -> list[dict]:
    """The settings that were printed, as a config reads them."""
    blocks = printed.partition('# for ')[2].split('# for ')
    found = []
    for block in blocks:
        scope: dict = {}
        exec(block.partition('\n')[2], scope)
        found.append(scope['own_data'])
    return found


def test_both_forms_with_a_split(source: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / 'deep' / 'out'
    arguments = ('coco', source, '--out', out, '--split', 0.8, 0.2, '--to', 'label-maps', 'coco')
    assert call(*arguments) == 0
    printed = capsys.readouterr()
    assert 'train: 8 images\n  8 objects: square 8\n  pixels: background 80.' in printed.out
    assert printed.err == 'read: 10/10\nwritten: 10/10\n'
    detection, segmentation = own_data_of(printed.out)
    assert detection == dict(
        data_root=str(out),
        train=dict(images='images/train', annotations='annotations/train.json'),
        val=dict(images='images/val', annotations='annotations/val.json'),
        classes=('square',),
    )
    assert segmentation == dict(
        data_root=str(out),
        train=dict(images='images/train', labels='labels/train'),
        val=dict(images='images/val', labels='labels/val'),
        classes=('background', 'square'),
        image_suffix='.jpg',
        label_suffix='.png',
    )
    pictures = [
        item['file_name'] for part in ('train', 'val') for item in coco_of(out, part)['images']
    ]
    assert sorted(pictures) == [f'{index}.jpg' for index in range(10)]
    assert files_in(tmp_path) == [f'deep/out/{name}' for name in files_in(out)]
    assert len(files_in(out)) == 23
    content = (source / '3.jpg').read_bytes()
    assert next(out.glob('images/*/3.jpg')).read_bytes() == content

    assert call(*arguments) == 2
    assert 'exists: name another folder, or replace it with --force' in capsys.readouterr().err
    before = {name: (out / name).read_bytes() for name in files_in(out)}
    (out / 'old').touch()
    assert call(*arguments, '--force') == 0
    assert {name: (out / name).read_bytes() for name in files_in(out)} == before
    assert call(*arguments, '--force', '--seed', 1) == 0
    assert [item['file_name'] for item in coco_of(out, 'val')['images']] != [
        name.removeprefix('images/val/') for name in before if name.startswith('images/val/')
    ]


def test_links_and_no_split(source: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / 'out'
    assert call('coco', source / 'all.json', '--out', out, '--to', 'coco', '--link') == 0
    assert (out / 'images/train/0.jpg').readlink() == source / '0.jpg'
    assert own_data_of(capsys.readouterr().out)[0]['val'] == 0.2


def test_skipped_objects_change_the_exit_code(source: Path, tmp_path: Path, capsys) -> None:
    things = [annotation(0, 0), annotation(1, 1, box=[200, 200, 9, 9]), annotation(2, 2, BOX, 9)]
    content = dict(images=images_of(*[SIZE] * 3), annotations=things, categories=SQUARE)
    path = save_json(tmp_path / 'some.json', content)
    out = tmp_path.parent / f'{tmp_path.name}_out'
    assert call('coco', path, '--images', source, '--out', out, '--to', 'coco') == 1
    printed = capsys.readouterr().out
    assert 'skipped: 1 x object of less than a pixel inside of its image (1.jpg)' in printed
    assert 'skipped: 1 x object of a category that is not listed (2.jpg)' in printed
    assert f'every name that was skipped is in {out}/conversion.json' in printed


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(split=[0.8, 0.3]), '--split 0.8 0.3: expected are two or three shares above 0 that'),
        (dict(split=[1.0]), '--split 1: expected'),
        (dict(classes=['a', 'a']), '--classes a a: a name stands twice'),
        (dict(kind='voc', to=['label-maps']), '--to label-maps: voc can become coco only'),
        (dict(kind='voc', source='all.json'), 'is a file, expected a folder'),
        (dict(source='absent'), 'absent does not exist'),
        (dict(images=[Path('nowhere')]), 'nowhere does not exist'),
        (dict(out='inside'), 'lies in'),
    ],
)
def test_wrong_requests(settings: dict, message: str, source: Path, tmp_path: Path) -> None:
    given = {'kind': 'coco', 'source': '', 'out': tmp_path / 'out', **settings}
    given |= {'source': source / given['source'], 'out': source / given['out']}
    with pytest.raises(UsageError, match=message):
        converted(**given)
    assert list(tmp_path.iterdir()) == []
    assert not (source / 'inside').exists()


def test_nothing_is_overwritten_or_left_half_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / 'mine'
    (out / 'photos').mkdir(parents=True)
    for target in (out, save_picture(tmp_path / 'file.jpg')):
        with pytest.raises(UsageError, match='holds something else than a converted data set'):
            converted('coco', source, target, force=True)
    with pytest.raises(UsageError, match=r'holds .*: name another folder'):
        converted('coco', out / 'photos', tmp_path)
    (out / 'photos').rmdir()
    before = [tmp_path / 'file.jpg', out]

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(conversion, 'write_coco', fail)
    with pytest.raises(KeyboardInterrupt):
        converted('coco', source, out, to=['coco'])
    assert sorted(tmp_path.iterdir()) == before
    assert list(out.iterdir()) == []
    monkeypatch.undo()
    converted('coco', source, out, to=['coco'])  # an empty folder may be filled
    assert len(files_in(out)) == 12


def test_a_source_with_parts_is_not_divided_again(source: Path, tmp_path: Path) -> None:
    converted('coco', source, tmp_path / 'once', split=[0.5, 0.5], to=['coco'])
    with pytest.raises(UsageError, match='is divided into train and val already: leave --split'):
        converted('coco', tmp_path / 'once', tmp_path / 'twice', split=[0.5, 0.5])
    with pytest.raises(UsageError, match='1 images cannot be divided into 2 parts'):
        divide([AnnotatedImage(PurePosixPath('a'), 1, 1)], [0.5, 0.5], 0)


def test_names_without_an_ending_get_that_of_the_picture(tmp_path: Path) -> None:
    source = tmp_path / 'in'
    names = ('frame.0001', 'frame.0002')
    for name in names:
        save_picture(source / f'{name}.jpg', *SIZE)
    images = [
        dict(id=index, file_name=name, height=SIZE[0], width=SIZE[1])
        for index, name in enumerate(names)
    ]
    things = [annotation(index, index) for index in range(2)]
    save_json(source / 'a.json', dict(images=images, annotations=things, categories=SQUARE))
    found = converted('coco', source, tmp_path / 'out')
    assert found.found.left_out.skipped == {}
    assert [str(image.name) for image in found.found.images] == [f'{name}.jpg' for name in names]


def test_pictures_in_what_is_replaced_are_refused(source: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    converted('coco', source, out)
    with pytest.raises(UsageError, match=r'--images .*images lies in --out'):
        converted('coco', source, out, images=[out / 'images'], force=True)
    assert (out / 'images').is_dir()


def test_images_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """A label map can belong to one of them only."""
    source = tmp_path / 'in'
    for name in ('a.jpg', 'a.png'):
        save_picture(source / name, *SIZE)
    images = [
        dict(id=index, file_name=name, height=SIZE[0], width=SIZE[1])
        for index, name in enumerate(('a.jpg', 'a.png'))
    ]
    things = [annotation(index, index) for index in range(2)]
    save_json(source / 'a.json', dict(images=images, annotations=things, categories=SQUARE))
    found = converted('coco', source, tmp_path / 'out').found
    assert found.left_out.skipped == {'another image has this name': ['a.png']}
