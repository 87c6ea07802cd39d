"""The digest of the data tells other data apart, however a data set names them."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from mmsw.benchmarks.digests import data_digest


def digest_of(**dataset: object) -> str:
    loader = dict(dataset=dict(type='AnyDataset', **dataset))
    return data_digest(Config(dict(train_dataloader=loader, val_dataloader=loader)))


NAMED = {
    'a folder of images': dict(data_prefix=dict(img='images')),
    'a folder as a string': dict(data_prefix='images'),
    'a split': dict(split='images'),
    'an annotation file': dict(ann_file='list.txt', data_prefix=dict(img='')),
    'nothing but the root': {},
}


@pytest.mark.parametrize('named', NAMED)
def test_other_data_have_another_digest(named: str, tmp_path: Path) -> None:
    def make(folder: Path, name: str) -> Path:
        (folder / 'images/cat').mkdir(parents=True)
        (folder / 'images/cat' / name).touch()
        (folder / 'list.txt').write_text(name)
        return folder

    same, copy = make(tmp_path / 'one', 'a.jpg'), make(tmp_path / 'two', 'a.jpg')
    other = make(tmp_path / 'other', 'b.jpg')
    digests = [digest_of(data_root=str(root), **NAMED[named]) for root in (same, copy, other)]
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_data_that_are_absent_have_a_digest() -> None:
    assert digest_of(data_root='nowhere', ann_file='list.txt') == digest_of(
        data_root='elsewhere', ann_file='list.txt'
    )
