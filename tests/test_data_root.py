"""``--data-root``: which paths of a config move, however they are spelled."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from mmengine.config import Config

from mmsw.apis import UsageError, data_root, load_config, set_data_root


def config(root: str | None, *datasets: dict, **more: object) -> Config:
    """A config whose training set is the concatenation of data sets."""
    inner = [dict(type='CocoDataset', **dataset) for dataset in datasets]
    loader = dict(dataset=dict(type='ConcatDataset', datasets=inner))
    variable = {} if root is None else dict(data_root=root)
    return Config(dict(**variable, train_dataloader=loader, **more))


def datasets_of(cfg: Config) -> list:
    return cfg.train_dataloader.dataset.datasets


@pytest.mark.parametrize(
    ('variable', 'used'),
    [
        ('./old', 'old/'),
        ('old/', './old'),
        ('old', 'x/../old//'),
        ('data\\old', 'data/old/'),
        ('data/old', 'data\\old\\'),
        ('old', os.path.abspath('old')),
        (os.path.abspath('old'), './old'),
        ('~/old', os.path.expanduser('~/old/')),
        ('s3://bucket/old', 's3://bucket/old/'),
        ('', ''),
        ('', './'),
        ('.', ''),
    ],
)
def test_one_place_spelled_in_two_ways(variable: str, used: str) -> None:
    inner = dict(data_root=used, ann_file='annotations/a.json', data_prefix=dict(img='train/'))
    for old in (variable, None):
        evaluator = dict(type='CocoMetric', ann_file=os.path.join(used, 'a.json'), metric='bbox')
        cfg = load_config(config(old, inner, val_evaluator=evaluator), {'data_root': '/new'})
        (moved,) = datasets_of(cfg)
        assert (moved.data_root, cfg.data_root) == ('/new', '/new')
        assert (moved.ann_file, moved.data_prefix.img) == ('annotations/a.json', 'train/')
        assert cfg.val_evaluator == {**evaluator, 'ann_file': '/new/a.json'}


def test_paths_without_a_data_root_beside_them_move_as_well() -> None:
    files = dict(ann_file='old/annotations/a.json', data_prefix=dict(img='./old/train/'))
    cfg = config('old/', files, dict(files, data_root=''), dict(files, data_root=None))
    set_data_root(cfg, 'new')
    for dataset in datasets_of(cfg):
        assert dataset.ann_file == 'new/annotations/a.json'
        assert dataset.data_prefix.img == 'new/train/'
    with pytest.raises(UsageError, match=r'cannot replace none: set the data_root of every'):
        set_data_root(config(None, files), 'new')


def test_paths_below_the_old_root_of_a_data_set_are_not_taken_for_its_own() -> None:
    """With data_root='old', the file 'old/a.json' is old/old/a.json."""
    inner = dict(data_root='old', ann_file='old/a.json', data_prefix=dict(img='old'))
    cfg = config('old', inner)
    set_data_root(cfg, 'new')
    (moved,) = datasets_of(cfg)
    assert (moved.data_root, moved.ann_file, moved.data_prefix.img) == ('new', 'old/a.json', 'old')


def test_words_are_no_paths_where_the_working_folder_is_the_root(tmp_path: Path) -> None:
    pipeline = [dict(type='Resize', interpolation='bilinear'), dict(type='Paste', objects_dir='x')]
    for old in ('.', str(Path.cwd().parent)):
        cfg = config(old, dict(data_root='.', ann_file='a.json', pipeline=pipeline))
        set_data_root(cfg, tmp_path)
        (moved,) = datasets_of(cfg)
        assert moved.type == 'CocoDataset'
        assert moved.pipeline[0] == pipeline[0]
        assert moved.pipeline[1].objects_dir.startswith(f'{tmp_path}/')
        assert moved.pipeline[1].objects_dir.endswith('x')


def test_several_roots_below_one_move_together_and_others_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(data_root, 'print_log', lambda text, *_: said.append(text))
    roots = [dict(data_root='old/a'), dict(data_root='./old/b/'), dict(data_root='/elsewhere')]
    cfg = config('old', *roots)
    set_data_root(cfg, 'new')
    assert [item.data_root for item in datasets_of(cfg)] == ['new/a', 'new/b/', '/elsewhere']
    assert said == [
        "the data root moves what lies below 'old'; the data sets in /elsewhere stay where they are"
    ]


def test_nothing_moved_is_an_error() -> None:
    cfg = config('old', dict(data_root='older'), dict(data_root='/else/old'))
    for call in (dict(data_root='new'), dict(cfg_options={'data_root': 'new'})):
        with pytest.raises(UsageError, match=r"data_root='old' .* data_root=/else/old, older: set"):
            load_config(cfg, **call)
    with pytest.raises(UsageError, match='The data sets have no data_root'):
        load_config(config('old', dict(ann_file='a.json')), data_root='new')
    with pytest.raises(UsageError, match='the data root is empty'):
        load_config(config('old', dict(data_root='old')), data_root='')
    set_data_root(again := config('old', dict(data_root='./old')), 'old')  # no change is fine
    assert datasets_of(again)[0].data_root == 'old'
