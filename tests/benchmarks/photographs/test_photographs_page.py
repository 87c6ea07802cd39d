"""Tables of the benchmark on real photographs: what they say of results whose values are known."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from study_helpers import ROOT

from mmsw.benchmarks.page import read_figures, text_in
from mmsw.benchmarks.photographs.full_size_page import full_size_text
from mmsw.benchmarks.photographs.page import headline, network_title, page_text, start_title
from mmsw.benchmarks.photographs.plan import HEADLINE, NETWORKS, OTHERS, PRUNED


def _run(score: float, name: str, density: float = 1.0, filters: int = 10) -> dict[str, Any]:
    return {
        'scores': {name: score},
        'curve': [{'iteration': 10, 'loss': 1.0, name: score / 2}, {'iteration': 20, name: score}],
        'seconds_per_iteration': 0.25,
        'threads': 1,
        'density_after': {'filters': filters, 'not_zero': density},
    }


def _entry(scores: list[float], name: str, **more: Any) -> dict[str, Any]:
    runs = {str(seed): _run(score, name, **more) for seed, score in enumerate(scores)}
    return {'wanted': len(scores), 'results': runs}


@pytest.fixture
def result() -> dict[str, Any]:
    """Every network one point below the one before it, in all three seeds."""
    networks, timed = [], {}
    for place, name in enumerate(NETWORKS):
        filters = {} if name in OTHERS else {'filters': 10}
        density = 1 - PRUNED.get(name, 0) / 100
        scores = [40.0 - place, 41.0 - place, 45.0 - place]
        more = {'density': density, 'filters': filters.get('filters', 0)}
        networks.append({'network': name, **_entry(scores, 'mIoU', **more)})
        timed[name] = {
            'median_ms': 20.0 + place,
            'relative': (20.0 + place) / 20,
            'parameters': 700_000,
            'parameters_used': 690_000 - 1000 * place,
            'macs': 800_000_000,
            'macs_used': 790_000_000 - place,
        }
    starts = [
        ('scratch', 0, [10.0, 12.0]),
        ('dense', 0, [20.0, 22.0]),
        ('sparse', 40, [19.0, 20.0]),
        ('sparse', 90, [15.0, 17.0]),
        ('sparse-unmasked', 90, [18.0, 18.0]),
    ]
    return {
        'machine': dict(cpus=2, cpu='A', cpu_capability='B', torch='C', date='2026-11-27T'),
        'settings': {
            'image_scale': [240, 180],
            'iterations': 20,
            'seeds': 3,
            'transfer_iterations': 30,
            'transfer_seeds': 2,
        },
        'networks': networks,
        'starts': [
            {'start': start, 'share': share, **_entry(scores, 'bbox AP', density=1 - share / 100)}
            for start, share, scores in starts
        ],
        'times': {'networks': timed},
    }  # fmt: skip


def _cells(text: str, first: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f'| {first} '))
    return [cell.strip() for cell in line.strip('|').split('|')]


def test_a_network_beside_the_dense_one(result: dict[str, Any]) -> None:
    text = page_text(result)
    cells = _cells(text, 'shift-wise, dense')
    assert cells[1:] == ['42.00 ± 2.65', '–', '100.0%', '0.690', '0.790', '20.0', '1.00', '0.250']
    place = NETWORKS.index('r18_narrow_camvid')
    cells = _cells(text, 'ResNet-18, narrow')
    assert cells[1:4] == [
        f'{42 - place:.2f} ± 2.65',
        f'-{place}.00 [-{place}.00, -{place}.00]',
        '–',
    ]
    assert cells[6:8] == [f'{20 + place}.0', f'{(20 + place) / 20:.2f}']
    assert _cells(text, 'shift-wise, 90% pruned, dynamic')[3] == '10.0%'


def test_starts_beside_scratch_and_dense(result: dict[str, Any]) -> None:
    text = page_text(result)
    assert _cells(text, 'scratch')[2:5] == ['11.00 ± 1.41', '–', '-10.00 [-10.00, -10.00]']
    # differences of 9 and 8: mean 8.5, deviation 0.7071, t of one degree of freedom 12.7062
    assert _cells(text, 'sparse, 40% pruned')[3] == '+8.50 [2.15, 14.85]'
    assert _cells(text, 'sparse, masks opened again, 90% pruned')[2] == '18.00 ± 0.00'


@pytest.fixture
def full_size() -> dict[str, Any]:
    """A pruned shift-wise network and a ResNet-18 at full size."""
    runs = []
    for place, name in enumerate(('sw_mini_dynamic40_camvid', 'r18_narrow_camvid')):
        more = {'density': 0.6, 'filters': 10 * (1 - place)}
        costs = {'parameters_used': 683_000 + place, 'macs_used': None if place else 780_000_000}
        classes = {'sky': 91.25 - place, 'pole': 12.0}
        runs.append(
            {'network': name, **_run(52.5 - place, 'mIoU', **more), **costs, 'classes': classes}
        )
    curve = [{'iteration': 10 * step, 'mIoU': 5.0 * step} for step in range(1, 10)]
    runs[0]['curve'] = [*curve, {'iteration': 100, 'mIoU': 52.5}]
    settings = {'iterations': 100, 'batch_size': 16, 'crop_size': [320, 448]}
    about = dict(cpus=2, cpu='A', cpu_capability='B', torch='C', date='2026-11-27T')
    return {'machine': about, 'settings': settings, 'runs': runs}


def test_runs_at_full_size(full_size: dict[str, Any]) -> None:
    text = full_size_text(full_size)
    assert '100 iterations of 16 crops of 448 x 320, one seed.' in ' '.join(text.split())
    heads = _cells(text, 'network')
    assert heads[4:] == [*(f'mIoU [%], {place}' for place in (10, 40, 70, 100)), 's / iteration']
    assert _cells(text, 'shift-wise, 40% pruned, dynamic')[1:] == [
        *('60.0%', '0.683', '0.780', '5.00', '20.00', '35.00', '52.50', '0.250')
    ]
    assert _cells(text, 'ResNet-18, narrow')[1:] == [
        *('–', '0.683', '–', '25.75', '–', '–', '–', '0.250')
    ]
    classes = text.partition('Each class')[2]
    assert _cells(classes, 'ResNet-18, narrow') == ['ResNet-18, narrow', '90.2', '12.0']


def test_what_is_not_finished_is_left_out(result: dict[str, Any]) -> None:
    part = copy.deepcopy(result)
    part |= {'times': None}
    for entry in part['starts']:
        entry['results'] = {}
    text = page_text(part)
    assert 'BCCD' not in text
    assert _cells(text, 'shift-wise, dense')[4:8] == ['–'] * 4


def test_the_page_follows_from_its_json(result: dict[str, Any]) -> None:
    assert page_text(json.loads(json.dumps(result))) == page_text(result)


def test_the_table_of_the_readme(result: dict[str, Any], full_size: dict[str, Any]) -> None:
    text = headline(result)
    assert [line.count('|') for line in text.splitlines()] == [6] * (2 + len(HEADLINE))
    assert _cells(text, 'shift-wise, dense')[1:] == ['42.0 ± 2.6', '100.0%', '0.79', '20.0']
    text = headline(result, full_size)
    assert _cells(text, 'shift-wise, dense')[2] == '–'
    assert _cells(text, 'ResNet-18, narrow')[2] == '51.50'


def test_the_readme_has_the_tables_of_the_page() -> None:
    page = ROOT / 'docs/real_images.md'
    shown = text_in(ROOT / 'README.md', 'photographs')
    assert shown == headline(read_figures(page), read_figures(page, 'full-size-gpu'))


def test_every_network_has_a_title_of_its_own() -> None:
    titles = [network_title(name) for name in NETWORKS]
    assert len(set(titles)) == len(NETWORKS)
    assert not any(re.search(r'_|camvid', title) for title in titles)
    assert start_title({'start': 'sparse', 'share': 70}) == 'sparse, 70% pruned'
