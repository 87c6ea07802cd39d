"""Statistics of a transfer benchmark, and the words that follow from them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from mmengine.config import Config

from mmsw.benchmarks.comparison import (
    Row,
    Spread,
    compare,
    compare_networks,
    conclude,
    paired_difference,
)
from mmsw.benchmarks.transfer.configured import configured_start, start_digest
from mmsw.benchmarks.transfer.plot import _styles, draw


def row(start: str, scores: dict[int, float], name: str = 'mIoU') -> Row:
    results = {seed: {'scores': {name: score}} for seed, score in scores.items()}
    return Row(len(scores), results, 'net', 'seg', start)


def test_mean_and_sample_deviation():
    spread = Spread.of([1.0, 2.0, 6.0])
    assert spread.mean == 3.0
    assert spread.deviation == pytest.approx(7.0**0.5)
    assert spread.text() == '3.00 ± 2.65'
    assert Spread.of([4.0]).text(1) == '4.0'
    assert Spread.of([]).text() == 'missing'
    diverged = Spread.of([1.0, float('nan')])
    assert (diverged.text(), diverged.interval) == ('nan', None)
    assert diverged.numbers() == {'mean': None, 'deviation': None, 'interval_95': None, 'n': 2}


def test_differences_are_paired_by_seed():
    dense, sparse = row('dense', {0: 10.0, 1: 20.0, 2: 30.0}), row('sparse', {0: 9.0, 2: 27.0})
    difference = paired_difference(sparse, dense, 'mIoU')
    assert (difference.mean, difference.n) == (-2.0, 2)
    assert difference.deviation == pytest.approx(2.0**0.5)


def test_interval_of_a_mean_is_that_of_students_t():
    stats = pytest.importorskip('scipy.stats', reason='scipy: absent; it knows the quantiles')
    for n in range(2, 32):
        spread = Spread.of([float(i * i) for i in range(n)])
        half = stats.t.ppf(0.975, n - 1) * spread.deviation / n**0.5
        assert (spread.interval[1] - spread.interval[0]) / 2 == pytest.approx(half, rel=1e-5)
        assert sum(spread.interval) / 2 == pytest.approx(spread.mean)
    many = Spread.of([float(i % 7) for i in range(100)])
    half = 2.04227 * many.deviation / 10  # wider than the exact 1.98422
    assert many.interval == pytest.approx((many.mean - half, many.mean + half))
    assert Spread.of([1.0]).interval is None


def test_texts_and_numbers_of_a_difference():
    spread = Spread.of([0.6, 0.7, 0.8])
    assert spread.signed_text() == '+0.70 [0.45, 0.95]'
    assert Spread.of([-0.7]).signed_text() == '-0.70'
    assert Spread.of([]).signed_text() == 'missing'
    assert spread.numbers()['interval_95'] == pytest.approx([0.45159, 0.94841], abs=1e-5)
    assert Spread.of([]).numbers() == {
        'mean': None,
        'deviation': None,
        'interval_95': None,
        'n': 0,
    }


def test_verdict_is_that_of_the_paired_interval():
    """Two differences that the spread of either start alone would call the other way round."""
    dense = row('dense', {0: 91.0, 1: 92.6, 2: 94.4})
    steady = row('steady', {0: 91.5, 1: 93.3, 2: 95.2})  # below the spread of dense, and sure
    shaky = row('shaky', {0: 87.0, 1: 92.0, 2: 91.0})  # above the spread of dense, and unsure
    assert conclude(compare([dense, steady, shaky], 'mIoU')) == (
        '2 comparisons with dense, paired by seed (3 seeds): mean difference in percentage points '
        'and its 95% t interval, no correction for the number of comparisons. '
        'The interval excludes zero in 1: net, steady, mIoU: +0.67 [0.29, 1.05]. '
        'It includes zero in the other 1: these runs show no difference there.'
    )


def test_conclusion_counts_all_comparisons():
    scratch, dense = row('scratch', {0: 10.0, 1: 11.0}), row('dense', {0: 40.0, 1: 42.0, 2: 41.0})
    sparse = row('sparse', {0: 40.5, 1: 42.5, 2: 40.9})
    open_ = row('open', {2: 40.0})
    text = conclude(compare([scratch, dense, sparse, open_], 'mIoU'))
    assert text.startswith('2 comparisons with dense, paired by seed (2 to 3 seeds): ')
    assert 'excludes zero in 1: net, scratch, mIoU: -30.50 [-36.85, -24.15].' in text
    assert text.endswith('Fewer than two common seeds, so not known: net, open, mIoU.')
    assert 'includes zero in all: these runs show no difference.' in conclude(
        compare([dense, sparse], 'mIoU')
    )


def test_reference_is_never_chosen_by_its_results():
    scratch, sparse = row('scratch', {0: 10.0, 1: 11.0}), row('sparse', {0: 40.0, 1: 42.0})
    impossible = Row(0, {}, 'net', 'seg', 'unmasked')
    found = compare([impossible, scratch, sparse], 'mIoU')
    assert [(item.name, item.reference) for item in found] == [('net, sparse, mIoU', 'scratch')]
    assert compare([impossible], 'mIoU') == compare([scratch], 'mIoU') == []
    assert conclude([]) == 'Nothing to compare: fewer than two starts.'


def test_networks_with_one_start_each_are_compared():
    ours = row('config', {0: 50.0, 1: 52.0})
    other = replace(row('config', {0: 47.0, 1: 48.0}), network='other')
    (found,) = compare_networks([ours, other], 'mIoU')
    assert (found.name, found.reference, found.difference.mean) == ('other, mIoU', 'net', -3.5)
    assert compare_networks([ours, row('scratch', {0: 1.0}), other], 'mIoU') == []


def test_start_that_a_config_names(tmp_path):
    def config(backbone: dict, **model) -> Config:
        return Config(dict(model=dict(backbone=backbone, **model)))

    address = 'open-mmlab://resnet18_v1c'
    wanted = dict(type='Pretrained', checkpoint=address)
    assert configured_start(config({}, pretrained=address)) == wanted
    assert configured_start(config(dict(pretrained=address))) == wanted
    assert configured_start(config(dict(init_cfg=dict(wanted, prefix='b.')))) == {
        **wanted,
        'prefix': 'b.',
    }
    assert configured_start(config(dict(init_cfg=None), pretrained=None)) is None
    path = tmp_path / 'a.pth'
    local = config(dict(init_cfg=dict(type='Pretrained', checkpoint=str(path))))
    digests = {start_digest(local), start_digest(config({}))}
    for content in ('one', 'two'):
        path.write_text(content)
        digests.add(start_digest(local))
    assert len(digests) == 4


def curved(network: str, start: str, score: float, seeds: int, length: int = 6) -> Row:
    """With a learning curve of two points."""
    results = {}
    for seed in range(seeds):
        last = score + seed * 0.5
        curve = [{'iteration': i, 'mIoU': last * i / length} for i in (length // 2, length)]
        results[seed] = {'scores': {'mIoU': last}, 'curve': curve}
    return Row(seeds, results, network, 'seg', start)


def test_picture_with_missing_seeds_and_starts(tmp_path):
    pytest.importorskip('matplotlib', reason='matplotlib: absent; draws the picture')
    rows = [
        *(curved('net', 'scratch', 9.0, 3), curved('net', 'scratch-long', 50.0, 3, 30)),
        *(curved('net', 'dense', 60.0, 3), curved('net', 'sparse', 61.0, 1)),
        Row(3, {}, 'net', 'seg', 'sparse-unmasked'),
    ]
    assert draw(rows, tmp_path / 'starts.svg')
    assert draw([rows[3]], tmp_path / 'one.svg')
    assert not draw(rows[4:], tmp_path / 'none.svg')
    assert not (tmp_path / 'none.svg').exists()


def test_networks_of_one_start_have_colours_of_their_own():
    styles = _styles([curved(name, 'scratch', 50.0, 1) for name in ('one', 'two')])
    assert len({style.colour for style in styles.values()}) == 2
    styles = _styles([curved(n, s, 50.0, 1) for n in ('one', 'two') for s in ('dense', 'sparse')])
    assert len({style.colour for style in styles.values()}) == 2  # of the starts
    assert len({(style.colour, style.line) for style in styles.values()}) == 4
