"""make figures: the commands of its jobs, what is run and what is not, and what the pages get."""

from __future__ import annotations

import runpy
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from run_tool import ROOT, tool

from mmsw.benchmarks.figures import run as figures_run
from mmsw.benchmarks.figures.blocks import QUICK_NOTE, problems_of
from mmsw.benchmarks.figures.jobs import CUDA, JOBS, Job
from mmsw.benchmarks.figures.listing import listing
from mmsw.benchmarks.figures.run import Places, chosen_jobs, commands_of, make_figures, state_of
from mmsw.benchmarks.page import begin_line, end_line, read_figures, text_in, write_tables
from mmsw.errors import UsageError

COMMANDS = [
    pytest.param(command, id=f'{job.name} {kind} {number}')
    for job in JOBS
    for kind in ('whole', 'quick')
    for number, command in enumerate(commands_of(job, kind == 'quick'))
    if not command.startswith('make ') and (ROOT / shlex.split(command)[0]).is_file()
]
TOYS = [
    Job(
        'one',
        'First?',
        ['tools/toy.py {out} {docs}/page.md one'],
        ['tools/toy.py q'],
        [('page.md', 'one')],
    ),
    Job(
        'two',
        'Second?',
        ['tools/toy.py {out} {docs}/page.md'],
        ['tools/toy.py q'],
        [('page.md', '')],
    ),
    Job('three', 'Third?', ['tools/toy.py'], ['tools/toy.py']),
]


@pytest.mark.parametrize('command', COMMANDS)
def test_tools_take_the_commands(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script, *words = shlex.split(command.format(out='out', all='all', docs='docs'))
    monkeypatch.setattr(sys, 'argv', [script, *words])
    parse = runpy.run_path(str(ROOT / script))['parse_args']
    parse(words)
    for word in words:
        if word.startswith('configs/'):
            assert (ROOT / word).is_file()


def test_targets_of_make_are_there() -> None:
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    targets = {c.split()[1] for job in JOBS for c in job.commands if c.startswith('make ')}
    assert targets == {'demo', 'demo-detection', 'demo-compare'}
    assert all(f'\n{target}: ' in makefile for target in targets)


def test_jobs_are_told_apart() -> None:
    names = [job.name for job in JOBS]
    assert len(set(names)) == len(names)
    with pytest.raises(UsageError, match='no job is called speed; expected some of demo, '):
        chosen_jobs(['speed'])
    assert [job.name for job in chosen_jobs(['networks', 'demo'])] == ['demo', 'networks']


class Toy:
    """In place of processes: writes tables, and returns what it is told."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.codes: dict[str, int] = {}
        self.called: list[str] = []
        self.value = 1
        self.silent = False

    def __call__(self, words: list[str], root: Path, log: object) -> int:
        name = 'three' if len(words) == 1 else words[3] if len(words) > 3 else 'two'
        name = self.quick() if words[1:] == ['q'] else name
        self.called.append(name)
        if self.codes.get(name):
            return self.codes[name]
        if name != 'three' and not self.silent:
            text = f'| ms |\n| --- |\n| {self.value} |'
            found = dict(machine={}, parts=[dict(head=['ms'], figures=0, rows=[[str(self.value)]])])
            block = '' if name == 'two' else name
            page = self.places.docs / 'page.md'
            write_tables(page, text + '\n', 'transcribed_tables', found, block)
        return 0

    def quick(self) -> str:
        return ('one', 'two')[sum(name != 'three' for name in self.called)]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Toy]:
    """A checkout with a page of two blocks, and what stands for its processes."""
    (tmp_path / 'tools').mkdir()
    (tmp_path / 'tools/toy.py').touch()
    (tmp_path / 'docs').mkdir()
    blocks = ''.join(f'{begin_line(name)}\n\nold\n{end_line(name)}\n\n' for name in ('one', ''))
    (tmp_path / 'docs/page.md').write_text(f'# Page\n\n{blocks}The end.\n', encoding='utf-8')

    def made(quick: bool = False) -> Toy:
        toy = Toy(Places.of(tmp_path, tmp_path / 'out', quick))
        monkeypatch.setattr(figures_run, '_call', toy)
        return toy

    return made


def test_jobs_run_once_and_their_figures_say_so(make) -> None:
    toy, said = make(), []
    assert make_figures(TOYS, toy.places, progress=said.append) == []
    assert toy.called == ['one', 'two', 'three']
    page = toy.places.docs / 'page.md'
    assert problems_of(page) == []
    assert text_in(page, 'one') == '| ms |\n| --- |\n| 1 |\n'
    assert page.read_text(encoding='utf-8').endswith('The end.\n')
    made = read_figures(page, 'one')['made']
    assert (made['job'], 'quick' in made) == ('one', False)
    assert made['job_seconds'] >= 0
    assert '  tools/toy.py out/one docs/page.md one' in said

    toy.value = 2
    assert make_figures(TOYS, toy.places, ['two'], said.append) == []
    assert toy.called == ['one', 'two', 'three', 'two']
    assert [text_in(page, name)[-4:-3] for name in ('one', '')] == ['1', '2']


def test_a_job_that_fails_stops_no_other(make) -> None:
    toy, said = make(), []
    toy.codes['one'] = 3
    assert make_figures(TOYS, toy.places, progress=said.append) == ['one']
    assert toy.called == ['one', 'two', 'three']
    assert f'  failed with exit code 3: {toy.places.out / "one/log.txt"}' in said
    assert text_in(toy.places.docs / 'page.md', 'one') == 'old'
    toy.codes.clear()
    assert make_figures(TOYS, toy.places, progress=said.append) == []
    assert toy.called[3:] == ['one']  # the others are done


def test_a_job_that_was_stopped_runs_again(make, monkeypatch) -> None:
    toy = make()

    def stopped(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(figures_run, '_call', stopped)
        with pytest.raises(KeyboardInterrupt):
            make_figures(TOYS, toy.places, progress=lambda line: None)
    assert state_of(TOYS[0], toy.places) is None
    assert make_figures(TOYS, toy.places, progress=lambda line: None) == []
    assert toy.called == ['one', 'two', 'three']


def test_a_job_that_writes_no_figures_has_failed(make) -> None:
    toy, said = make(), []
    toy.silent = True
    assert make_figures(TOYS[:2], toy.places, progress=said.append) == ['one', 'two']
    assert '  page.md, block one: the commands wrote no figures' in said


def test_a_quick_run_leaves_the_pages_alone(make) -> None:
    toy = make(quick=True)
    source = toy.places.root / 'docs'
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    assert make_figures(TOYS, toy.places, progress=lambda line: None) == []
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before
    page = toy.places.docs / 'page.md'
    assert page == toy.places.root / 'out/quick/docs/page.md'
    assert problems_of(page) == []
    for name in ('one', ''):
        assert text_in(page, name).startswith(QUICK_NOTE)
        assert read_figures(page, name)['made']['quick'] is True
    whole = Places.of(toy.places.root, toy.places.root / 'out', False)
    assert [state_of(job, whole) for job in TOYS] == [None] * 3


def test_pictures_are_fetched(make) -> None:
    toy = make()
    picture = toy.places.out / 'three/a.svg'
    picture.parent.mkdir(parents=True)
    picture.write_text('<svg/>', encoding='utf-8')
    job = Job('three', 'Third?', ['tools/toy.py'], [], pictures=[('{out}/a.svg', 'b.svg')])
    assert make_figures([job], toy.places, progress=lambda line: None) == []
    assert (toy.places.docs / 'b.svg').read_text(encoding='utf-8') == '<svg/>'


def test_what_cannot_run_is_left_out(make, monkeypatch) -> None:
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    toy, said = make(), []
    jobs = [
        Job('gpu', 'Fast?', ['tools/toy.py'], [], device=CUDA),
        Job('gone', 'Where?', ['tools/gone.py'], []),
    ]
    assert make_figures(jobs, toy.places, progress=said.append) == []
    assert said == [
        '[1/2] gpu: left out: needs a GPU',
        '[2/2] gone: left out: tools/gone.py does not exist',
    ]
    assert toy.called == []


def test_a_command_runs_in_the_checkout(tmp_path: Path) -> None:
    (tmp_path / 'toy.py').write_text(
        'import pathlib, sys\nprint(pathlib.Path.cwd().name, *sys.argv[1:])\nsys.exit(3)\n',
        encoding='utf-8',
    )
    with (tmp_path / 'log.txt').open('w', encoding='utf-8') as log:
        assert figures_run._call(['toy.py', 'a b'], tmp_path, log) == 3
    lines = (tmp_path / 'log.txt').read_text(encoding='utf-8').splitlines()
    assert lines == ["$ toy.py 'a b'", f'{tmp_path.name} a b']


def test_the_list_tells_what_is_current(make, monkeypatch) -> None:
    toy = make()
    before = listing(TOYS, toy.places)
    assert before.count('not run') == 3
    toy.codes['two'] = 1
    make_figures(TOYS, toy.places, progress=lambda line: None)
    jobs, blocks = listing(TOYS, toy.places).split('\n\n')
    states = [line.split()[1] for line in jobs.splitlines()[1:]]
    assert states == ['done', 'failed', 'done']
    assert blocks.splitlines()[1].startswith('page.md one')
    assert blocks.splitlines()[2].split()[2:] == ['none', '–', '–']


def test_the_tool_checks_the_pages(capsys) -> None:
    assert tool('make_figures', '--check') == 0
    assert capsys.readouterr().out == 'every table is that of the figures beside its page\n'


def test_the_tool_lists_every_job(capsys, tmp_path: Path) -> None:
    assert tool('make_figures', '--list', '--out', tmp_path) == 0
    shown = capsys.readouterr().out
    assert all(f'\n{job.name} ' in shown for job in JOBS)
    assert list(tmp_path.iterdir()) == []


def test_the_tool_refuses_unknown_jobs(capsys, tmp_path: Path) -> None:
    assert tool('make_figures', '--only', 'speed', '--out', tmp_path / 'new') == 2
    assert tool('make_figures', '--again', 'speed', '--out', tmp_path / 'new') == 2
    assert capsys.readouterr().err.count('error: no job is called speed') == 2
    assert not (tmp_path / 'new').exists()
