"""Pascal VOC becomes COCO JSON."""

from __future__ import annotations

from pathlib import Path

import pytest
from convert_helpers import HEIGHT, WIDTH, converted, files_in, objects_of, save_picture

from mmsw.errors import DataError

BOX = '<bndbox><xmin>2</xmin><ymin>3.5</ymin><xmax>12</xmax><ymax>20</ymax></bndbox>'
SIZE = f'<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>'


def save_xml(path: Path, *objects: str, name: str = 'a.jpg', size: str = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    inner = ''.join(f'<object>{item}</object>' for item in objects)
    path.write_text(f'<annotation><filename>{name}</filename>{size}{inner}</annotation>')


def test_boxes(tmp_path: Path) -> None:
    source, out = tmp_path / 'voc', tmp_path / 'out'
    save_picture(source / 'images' / 'a.jpg')
    save_picture(source / 'images' / 'b.png')
    save_picture(source / 'images' / 'c.JPG')
    save_picture(source / 'images' / 'without.jpg')
    turned = BOX.replace('<xmin>2', '<xmin>12').replace('<xmax>12', '<xmax>2')
    wide = BOX.replace('<xmax>12', '<xmax>99').replace('<ymin>3.5', '<ymin>-4')
    save_xml(
        source / 'Annotations' / 'a.xml',
        f'<name>dog</name><truncated>1</truncated><difficult>0</difficult>{BOX}',
        f'<name> cat </name><difficult>1</difficult>{BOX}',
    )
    save_xml(
        source / 'Annotations' / 'b.xml', f'<name>dog</name>{turned}', name='b',
        size='<size><width>0</width><height>0</height></size>',
    )  # fmt: skip
    save_xml(source / 'Annotations' / 'c.xml', f'<name>dog</name>{wide}', name='old.jpg', size='')
    found = converted('voc', source, out).found
    assert found.classes == ['cat', 'dog']
    assert found.left_out.skipped == {}
    assert objects_of(out) == [
        ('a.jpg', 'dog', [2, 3.5, 10, 16.5], 0),
        ('a.jpg', 'cat', [2, 3.5, 10, 16.5], 1),
        ('b.png', 'dog', [2, 3.5, 10, 16.5], 0),
        ('c.jpg', 'dog', [2, 0, 28, 20], 0),
    ]
    assert files_in(out / 'images') == ['train/a.jpg', 'train/b.png', 'train/c.jpg']
    again = tmp_path / 'again'
    converted('voc', source, again, settings=dict(one_based=True), crowds_as_objects=True)
    assert objects_of(again)[1] == ('a.jpg', 'cat', [1, 2.5, 11, 17.5], 0)


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    source = tmp_path / 'voc'
    for name in ('good', 'cut', 'other', 'wrong size', 'broken picture'):
        save_picture(source / f'{name}.jpg')
        save_xml(source / f'{name}.xml', f'<name>dog</name>{BOX}')
    save_xml(
        source / 'good.xml', f'<name>dog</name>{BOX}', BOX, '<name>dog</name>',
        f'<name>dog</name>{BOX.replace("<xmax>12", "<xmax>2.5")}',
    )  # fmt: skip
    (source / 'cut.xml').write_text('<annotation><object>')
    (source / 'other.xml').write_text('<kml></kml>')
    (source / 'broken picture.jpg').write_bytes(b'no picture')
    save_xml(source / 'wrong size.xml', size=SIZE.replace(str(WIDTH), '31'))
    save_xml(source / 'alone.xml', name='alone.jpg')
    found = converted('voc', source, tmp_path / 'out').found
    assert found.left_out.skipped == {
        'its picture is not there': ['alone'],
        'the picture cannot be read': ['broken picture'],
        'the file is no valid XML': ['cut'],
        'the file is no annotation of Pascal VOC': ['other'],
        'the annotation states another size than the picture has': ['wrong size'],
        'object without a name': ['good'],
        'object without xmin, ymin, xmax and ymax in bndbox': ['good'],
        'object of less than a pixel inside of its image': ['good.jpg'],
    }
    assert len(objects_of(tmp_path / 'out')) == 1


def test_lists_of_the_challenge_divide(tmp_path: Path) -> None:
    source = tmp_path / 'VOC2012'
    for name in 'abc':
        save_picture(source / 'JPEGImages' / f'{name}.jpg')
        save_xml(source / 'Annotations' / f'{name}.xml', f'<name>dog</name>{BOX}')
    lists = source / 'ImageSets' / 'Main'
    lists.mkdir(parents=True)
    (lists / 'train.txt').write_text('a\n')
    (lists / 'val.txt').write_text('b\n')
    (lists / 'trainval.txt').write_text('a\nb\n')
    (lists / 'dog_train.txt').write_text('c 1\n')
    found = converted('voc', source, tmp_path / 'out')
    assert found.images == {'train': 1, 'val': 1}
    assert found.found.left_out.skipped == {}
    assert found.found.left_out.notes == {'no list in ImageSets/Main names the image': ['c']}


def test_folders_of_roboflow_divide(tmp_path: Path) -> None:
    source = tmp_path / 'roboflow'
    for part in ('train', 'valid', 'test'):
        save_picture(source / part / 'a.jpg')
        save_xml(source / part / 'a.xml', f'<name>{part}</name>{BOX}')
    converted('voc', source, tmp_path / 'out')
    for part in ('train', 'val', 'test'):
        assert objects_of(tmp_path / 'out', part)[0][1].startswith(part)


def test_names_of_files_are_no_parts(tmp_path: Path) -> None:
    source = tmp_path / 'voc'
    for name in ('train_1', 'valve', 'test_2'):
        save_picture(source / f'{name}.jpg')
        save_xml(source / f'{name}.xml', f'<name>a</name>{BOX}', name=f'{name}.jpg')
    found = converted('voc', source, tmp_path / 'out', split=(2 / 3, 1 / 3))
    assert found.images == {'train': 2, 'val': 1}


def test_folder_without_xml_files(tmp_path: Path) -> None:
    save_picture(tmp_path / 'voc' / 'a.jpg')
    with pytest.raises(DataError, match=r'voc has no \.xml file; expected is one per image'):
        converted('voc', tmp_path / 'voc', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
