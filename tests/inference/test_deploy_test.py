"""tools/test.py --deploy: a test of the folded form."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from inference_helpers import CONFIGS, both, write_data
from mmengine.model import BaseModel
from torch import nn

from mmsw.apis import UsageError, build_test_runner, load_config
from mmsw.apis.fold_hook import FoldModelHook
from mmsw.checkpoint.folded import is_folded
from mmsw.engine.model_wrapper import unwrapped


@pytest.fixture(autouse=True)
def _quiet(plain_config_text: None) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


@both
def test_scores_of_the_folded_form(scope: str, checkpoints, tmp_path: Path) -> None:
    """Also with averaged weights, whose hook exchanges tensors, and for augmented tests."""
    root, cfg = write_data(scope, tmp_path), load_config(CONFIGS[scope])
    wishes = [{}, dict(deploy=True, show_dir=tmp_path / 'shown')]
    options = {'custom_hooks': [dict(type='EMAHook')], 'model.test_cfg.score_thr': 0.0}
    if scope == 'mmseg':
        wishes.append(dict(deploy=True, tta=True))
        cfg.tta_pipeline[1]['transforms'][0] = [dict(type='Resize', scale_factor=1.0)]
    scores = []
    for wish in wishes:
        runner = build_test_runner(
            cfg,
            checkpoints[scope],
            tmp_path / 'work',
            cfg_options=options,
            data_root=root,
            **wish,
        )
        scores.append(runner.test())
        assert is_folded(unwrapped(runner.model).state_dict()) == bool(wish)
    plain, folded = scores[:2]
    assert plain == pytest.approx(folded, abs=0.2, nan_ok=True)
    assert len(list((tmp_path / 'shown').rglob('*.*'))) == 2


class Own(BaseModel):
    """A model without anything to fold."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(1, 1)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, inputs, mode: str = 'tensor'):
        return inputs


def test_models_that_cannot_be_folded_are_refused() -> None:
    hook, runner = FoldModelHook(), SimpleNamespace(model=Own(), logger=logging.getLogger('x'))
    with pytest.raises(UsageError, match='nothing of the Own can be folded: its Linear has no fol'):
        hook.before_test(runner)
