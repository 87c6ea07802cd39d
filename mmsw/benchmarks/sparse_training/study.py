"""The benchmark of sparse training: which methods at which sparsities, what they cost."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmsw.apis.backbone import build_backbone
from mmsw.apis.config import load_config
from mmsw.apis.data import check_data
from mmsw.component_name import component_name
from mmsw.errors import UsageError
from mmsw.sparsity import masked_layers

from ..configs import make_missing_data, read_config
from ..execution import Way
from ..page import blocks_to_fill
from ..runs import Failure
from ..study import Study, check_jobs, check_least, check_names, check_share
from .operator_time import measure_operators, operator_of
from .page import BLOCKS, update_page
from .plan import METHODS, SparsityRun, SparsitySettings, plan_runs, run_config
from .plot import draw
from .report import write_report
from .summary import make_cells

_DEMO_FOLDER = 'coco'  # of the demo data, where a config of the cutouts finds them
_HELD_OUT = 600  # scenes of the benchmark's own data to evaluate on


class SparsityStudy(Study[SparsityRun]):
    """Train dense, static and dynamic sparse networks under one budget, and compare them.

    Args:
        config: Config of a classifier with shift-wise layers, whose evaluator gives ``accuracy``.
        data: For a config of the demonstration the folder that ``tools/make_demo_data.py`` makes;
            None for scenes in the output folder, of which more are held out than the demonstration
            has, since few tell little about small differences. They are made if they are absent.
            For other configs the data root; None: as the config says.
        cfg_options: Changes to the config, dotted key -> value.
        settings: Everything else.
        progress: Called with a line of text now and then; None: prints it.

    Raises:
        UsageError: If something asked for is impossible.
    """

    picture = 'sparse_training.png'

    def __init__(
        self,
        config: str | os.PathLike[str],
        data: Path | None,
        cfg_options: Mapping[str, Any],
        settings: SparsitySettings,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(settings.out, Way(jobs=settings.jobs, threads=1), progress)
        _check(settings)
        self.settings = settings
        cfg, _, dataset = read_config(config, cfg_options)
        self.is_demo = component_name(dataset.get('type')) == 'DemoCutouts'
        self.root = Path(cfg.get('data_root') or dataset.get('data_root') or '')
        self.held_out = {}
        if data is None and self.is_demo:
            data, self.held_out = settings.out / 'scenes', {'num_val': _HELD_OUT}
        if data is not None:
            self.root = data / _DEMO_FOLDER if self.is_demo else data
            cfg = load_config(cfg, data_root=self.root)
        self.cfg = cfg
        if not any(True for _ in masked_layers(build_backbone(cfg))):
            raise UsageError(
                f'the backbone of {config} has no shift-wise layer that could be sparse'
            )

    def check(self) -> None:
        if self.settings.page is not None:
            blocks_to_fill(self.settings.page, BLOCKS)
        if not self.is_demo or self.root.parent.exists():
            check_data(self.cfg, ('train_dataloader', 'val_dataloader'))

    def make_data(self) -> None:
        if self.is_demo:
            make_missing_data(self.root.parent, self.progress, **self.held_out)

    def plan(self) -> list[SparsityRun]:
        return plan_runs(self.cfg, self.root, self.settings)

    def config_of(self, run: SparsityRun) -> Config:
        return run_config(self.cfg, run, self.settings)

    def inputs(self) -> Iterator[str]:
        yield f'data: {self.root}{"" if self.root.exists() else " (absent)"}'

    def length(self, runs: Sequence[SparsityRun]) -> str:
        return f'{self.settings.max_iters} iterations each, {self.settings.jobs} side by side'

    def measure(self, runs: Sequence[SparsityRun]) -> None:
        measure_operators(self.cfg, runs, self.progress)

    def report(self, runs: Sequence[SparsityRun], failures: Sequence[Failure]) -> str:
        text = write_report(runs, self.settings, failures)
        if self.settings.page is not None and all(operator_of(run) for run in runs):
            update_page(make_cells(runs), self.settings, self.settings.page)
        return text

    def draw(self, runs: Sequence[SparsityRun], path: Path) -> None:
        draw(make_cells(runs), path)


def _check(settings: SparsitySettings) -> None:
    check_names('methods', settings.methods, METHODS)
    for sparsity in settings.sparsities:
        check_share(sparsity, ' (30 per cent are 0.3; nothing pruned is the method dense)')
    if not settings.sparsities:
        raise UsageError('sparsity must name at least one value')
    values = [f'{sparsity:g}' for sparsity in settings.sparsities]
    check_names('sparsity', values, values)
    check_least({'seeds': settings.seeds})
    check_least({'max iterations': settings.max_iters}, least=2)
    check_least({'interval': settings.update_interval})
    check_jobs(settings.jobs)
