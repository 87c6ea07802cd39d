"""What README, docs and the heads of configs tell people to type: it parses, and adds up."""

from __future__ import annotations

import importlib.metadata
import re
import runpy
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from config_helpers import RECIPE, ROOT, build_model, count_parameters, own_options

from mmsw.apis import UsageError, load_config

RECIPES = ROOT / 'docs' / 'recipes.md'
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]
CONFIGS = sorted((ROOT / 'configs').rglob('*.py'))
TOOL = re.compile(r'(?:\S+/)?python |tools/dist_|[A-Z_]+=\S+ .*(?:tools/|python )')


@dataclass(frozen=True)
class Command:
    """A call of a tool as a page prints it.

    Attributes:
        page: Where it stands.
        tool: Name of the Python tool in the end: ``train`` for ``dist_train.sh``.
        arguments: Those of that tool.
        processes: How many are started in all.
    """

    page: str
    tool: str
    arguments: tuple[str, ...]
    processes: int

    def __str__(self) -> str:
        return f'{self.page}: {self.tool} {" ".join(self.arguments)}'


def blocks(page: Path, language: str) -> list[str]:
    """Code blocks of a page in a language; of a config, what its head indents."""
    text = page.read_text(encoding='utf-8')
    if page.suffix == '.md':
        return re.findall(rf'^```{language}\n(.*?)^```', text, flags=re.DOTALL | re.MULTILINE)
    head = text.split('\n_base_')[0]
    return ['\n'.join(line[2:].strip() for line in head.splitlines() if line.startswith('#   '))]


def commands() -> list[Command]:
    found = []
    for page in [*PAGES, *CONFIGS]:
        for block in blocks(page, 'bash'):
            for line in block.replace('\\\n', ' ').splitlines():
                words = shlex.split(line, comments=True) if TOOL.match(line) else []
                nodes = next((int(w[7:]) for w in words if w.startswith('NNODES=')), 1)
                place = next((i for i, w in enumerate(words) if w.startswith('tools/')), None)
                if place is None:
                    continue
                words = words[: words.index('>')] if '>' in words else words
                tool, rest = Path(words[place]).stem, words[place + 1 :]
                processes = 1
                if tool.startswith('dist_'):
                    tool = tool[5:]
                    position = 1 if tool == 'train' else 2
                    processes = nodes * int(rest.pop(position))
                name = str(page.relative_to(ROOT))
                found.append(Command(name, tool, tuple(rest), processes))
    return found


COMMANDS = commands()
RUNS = [
    c
    for c in COMMANDS
    if c.tool in ('train', 'test')
    and c.arguments[0].startswith(('configs/', 'tests/'))  # others are written by their page
]


def parsed(command: Command):
    """Arguments as the tool itself reads them; they name files that need not be there."""
    parse = runpy.run_path(str(ROOT / 'tools' / f'{command.tool}.py'))['parse_args']
    return parse(command.arguments)


def config_of(command: Command):
    args = parsed(command)
    try:
        return args, load_config(
            ROOT / args.config, own_options(args.config) | (args.cfg_options or {})
        )
    except UsageError as error:
        if 'mmdet is not installed' in str(error):
            pytest.skip('mmdet: absent; the config inherits from it')
        raise


def test_commands_are_found() -> None:
    pages = {command.page for command in COMMANDS}
    assert {'README.md', 'docs/recipes.md', 'configs/upernet_sw_t_ade20k.py'} <= pages
    assert len(RUNS) > 15


@pytest.mark.parametrize('command', [c for c in COMMANDS if c not in RUNS], ids=str)
def test_tools_take_what_is_printed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr('sys.argv', [command.tool, *command.arguments])
    parsed(command)
    for word in command.arguments:
        if word.startswith('configs/'):
            assert (ROOT / word).is_file()


@pytest.mark.parametrize('command', RUNS, ids=str)
def test_options_of_runs_fit_their_config(command: Command) -> None:
    args, cfg = config_of(command)
    options = args.cfg_options or {}
    dynamic = [key for key in options if key.startswith('custom_hooks.0.')]
    assert not dynamic or cfg.custom_hooks[0].type == 'DynamicSparsityHook'
    if command.tool != 'train' or cfg.train_cfg.get('max_iters') == 2:  # the smoke test
        return
    batch, base = cfg.train_dataloader.batch_size, cfg.get('auto_scale_lr', {})
    accumulated = cfg.optim_wrapper.get('accumulative_counts', 1)
    if args.auto_scale_lr:
        assert accumulated == 1  # it knows of none
    elif base:
        assert command.processes * batch * accumulated == base['base_batch_size']
    if 'in1k' in args.config and dynamic:
        assert cfg.custom_hooks[0].interval == 100 * accumulated  # in iterations
    elif 'in1k' in args.config and accumulated > 1:
        assert cfg.custom_hooks[0].type != 'DynamicSparsityHook'


def gpu_table() -> list[tuple[int, str, str]]:
    """(GPUs, config, options) of the table of the recipes, without the empty cells."""
    text = RECIPES.read_text(encoding='utf-8').split('## How many GPUs')[1].split('\n## ')[0]
    rows = re.findall(r'^\| (\d+) \|(.*)\|(.*)\|(.*)\|$', text, flags=re.MULTILINE)
    names = ('upernet_sw_t_ade20k', 'cascade_mask_rcnn_sw_t_coco', 'pretrain/sw_t_in1k')
    return [
        (int(row[0]), f'configs/{name}.py', cell.strip(' `').replace('none', ''))
        for row in rows
        for name, cell in zip(names, row[1:], strict=True)
        if cell.strip()
    ]


@pytest.mark.parametrize(('gpus', 'config', 'options'), gpu_table())
def test_table_of_gpus_adds_up(gpus: int, config: str, options: str) -> None:
    words = ['--cfg-options', *options.split()] if options else []
    test_options_of_runs_fit_their_config(Command('', 'train', (config, *words), gpus))


def test_table_of_gpus_is_complete() -> None:
    assert [row[0] for row in gpu_table()] == [1, 1, 1, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32]


def test_readme_is_short_and_leads_to_what_is_there() -> None:
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    assert text.count('\n') < 150
    targets = re.findall(r'\]\((?!https?:)([^)#]+)', text)
    assert len(targets) > 20
    assert [target for target in targets if not (ROOT / target).is_file()] == []


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_hooks_stand_in_one_order(page: Path) -> None:
    """``custom_hooks.0`` of the options is the same hook in every text and config."""
    for block in blocks(page, 'python'):
        kinds = re.findall(r"type='(\w+Hook)'", block)
        assert 'DynamicSparsityHook' not in kinds[1:]


@pytest.fixture
def mmseg_bases() -> None:
    """mmengine looks for a base ``mmseg::`` in the distribution of this name, which forks lack."""
    try:
        importlib.metadata.distribution('mmsegmentation')
    except importlib.metadata.PackageNotFoundError:
        pytest.skip('mmseg: no distribution mmsegmentation, so mmengine finds no base mmseg::')


def own_config(folder: Path) -> Path:
    (block,) = [b for b in blocks(RECIPES, 'python') if b.startswith('# my_upernet.py')]
    path = folder / 'my_upernet.py'
    path.write_text(block)
    return path


@pytest.mark.usefixtures('mmseg_bases')
def test_own_config_of_the_recipes_is_the_recipe(tmp_path: Path) -> None:
    """The block loads as it stands; where it says less, the base says the same as the recipe."""
    own, recipe = load_config(own_config(tmp_path)), load_config(RECIPE)
    defaults = ('big_kernels', 'ghost_ratio', 'num_paths', 'num_reps', 'out_indices')
    expected = {k: v for k, v in recipe.model.backbone.items() if k not in defaults}
    assert own.model.backbone == expected
    for key in ('auto_scale_lr', 'custom_hooks'):
        assert own[key] == recipe[key]
    assert own.optim_wrapper == recipe.optim_wrapper
    assert own.param_scheduler == recipe.param_scheduler
    assert own.train_dataloader.batch_size == recipe.train_dataloader.batch_size
    assert own.train_cfg.max_iters == recipe.train_cfg.max_iters


@pytest.mark.usefixtures('mmseg_bases')
def test_own_config_of_the_recipes_builds(tmp_path: Path) -> None:
    pytest.importorskip('mmcv._ext', reason='mmcv.ops: absent; mmseg needs them')
    cfg = load_config(own_config(tmp_path))
    cfg.model.backbone.init_cfg = None
    with torch.device('meta'):
        model = build_model(cfg)
    assert type(model.backbone).__name__ == 'ShiftWiseNet'
    assert count_parameters(model) == 62_514_776
