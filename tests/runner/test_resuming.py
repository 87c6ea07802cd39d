"""What is said at the start of a run that goes on otherwise than it began."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.registry import DATASETS
from tiny_run import TinyData, tiny_config

from mmsw.apis import build_runner
from mmsw.apis.checks.resuming import settings_of_text

SCHEDULE = [dict(type='PolyLR', by_epoch=False, begin=0, end=2)]


@DATASETS.register_module()
class OtherNames(TinyData):
    metainfo = dict(classes=('c', 'b'))


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('trained')
    build_runner(tiny_config(folder, param_scheduler=SCHEDULE)).train()
    return folder / 'iter_2.pth'


def said(messages: list) -> list[str]:
    return [text for level, text in messages if level == 'WARNING' and 'the resumed one' in text]


def test_other_values_are_said_once_with_both(
    trained: Path, tmp_path: Path, messages: list
) -> None:
    cfg = tiny_config(tmp_path, 4, param_scheduler=SCHEDULE)
    cfg.train_dataloader.update(batch_size=4, dataset=dict(type='OtherNames'))
    cfg.optim_wrapper.optimizer.lr = 0.3
    cfg.optim_wrapper.accumulative_counts = 2
    runner = build_runner(cfg, resume=trained)
    runner.train()
    length, batch, rate, classes = said(messages)
    assert 'trains for 4 iterations (train_cfg.max_iters), the resumed one for 2' in length
    assert (
        'batches of 4 x 2 (accumulated) (train_dataloader.batch_size), the resumed one 2' in batch
    )
    assert 'a learning rate of 0.3 (optim_wrapper.optimizer.lr), the resumed one 0.1' in rate
    assert 'the 2 classes c, b, the resumed one the 2 classes a, b' in classes
    (group,) = runner.optim_wrapper.optimizer.param_groups
    assert group['initial_lr'] == 0.1, 'the message says that the old rate goes on'


def test_nothing_is_said_of_what_is_the_same(trained: Path, tmp_path: Path, messages: list) -> None:
    build_runner(tiny_config(tmp_path, param_scheduler=SCHEDULE), resume=trained).train()
    assert said(messages) == []


def test_a_shorter_run_has_nothing_to_train(trained: Path, tmp_path: Path, messages: list) -> None:
    build_runner(tiny_config(tmp_path, 1), resume=trained).train()
    (text,) = said(messages)
    assert text.endswith('after 2 nothing is left to train')


def test_a_file_that_says_nothing_is_resumed(trained: Path, tmp_path: Path, messages: list) -> None:
    content = torch.load(trained, weights_only=False)
    content['meta'].pop('cfg')
    content['meta'].pop('dataset_meta')
    torch.save(content, tmp_path / 'bare.pth')
    build_runner(tiny_config(tmp_path, 4), resume=tmp_path / 'bare.pth').train()
    assert said(messages) == []


def test_the_text_of_a_config_is_read_and_not_run() -> None:
    text = "a = dict(b=[1, (2, 'x')], c={'d': -1.5})\ne = __import__('os').abort()\nf = None"
    assert settings_of_text(text) == {
        'a': {'b': [1, [2, 'x']], 'c': {'d': -1.5}},
        'e': None,
        'f': None,
    }
    for other in (None, 3, 'a = (', '{' * 5000):
        assert settings_of_text(other) == {}


@pytest.mark.parametrize(
    ('made', 'reason'),
    [(None, 'no such folder'), ('', 'holds no checkpoint'), ('iter_2.pth', 'no file last_check')],
)
def test_nothing_to_resume_is_a_warning_that_says_why(
    tmp_path: Path, messages: list, made: str | None, reason: str
) -> None:
    work = tmp_path / 'work'
    if made is not None:
        work.mkdir()
        (work / made).touch()
    for wish in (dict(resume=True), dict(cfg_options={'resume': True})):
        messages.clear()
        build_runner(tiny_config(work), **wish)
        (text,) = [text for level, text in messages if 'nothing to resume' in text]
        assert ('WARNING', text) in messages
        assert text.endswith('starting from the beginning')
        if wish == dict(resume=True):
            assert reason in text
