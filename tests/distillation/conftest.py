"""Teachers that the tests share, and models with what they are taught."""

from __future__ import annotations

from pathlib import Path

import pytest
from lessons import detector, make_teacher, segmentor


@pytest.fixture(autouse=True)
def _plain_config_text(plain_config_text: None) -> None:
    """For every test here."""


@pytest.fixture(scope='session')
def of_segmentor(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return make_teacher(tmp_path_factory.mktemp('segmentor'), segmentor())


@pytest.fixture(scope='session')
def of_detector(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return make_teacher(tmp_path_factory.mktemp('detector'), detector())


@pytest.fixture(params=['segmentor', 'detector'])
def case(request: pytest.FixtureRequest) -> tuple[dict, dict]:
    """A model, and the settings of a hook that teaches it."""
    teacher = request.getfixturevalue(f'of_{request.param}')
    if request.param == 'segmentor':
        layers = ['backbone.stages.1', 'backbone']
        return segmentor(), dict(teacher=teacher, logits=dict(), features=layers)
    return detector(), dict(teacher=teacher, features=['neck'])


@pytest.fixture
def tmp_work(tmp_path: Path) -> Path:
    return tmp_path / 'work'
