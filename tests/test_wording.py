"""mmsw.wording: some of many names, and an error in one line."""

from __future__ import annotations

import pytest

from mmsw.wording import listed, short


@pytest.mark.parametrize(
    ('names', 'most', 'text'),
    [
        ([], 4, 'none'),
        (['a'], 4, 'a'),
        (list('abcd'), 4, 'a, b, c, d'),
        (list('abcde'), 4, 'a, b, c, d and 1 more'),
        (dict.fromkeys('abc', 0), 2, 'a, b and 1 more'),
    ],
)
def test_names_are_shown_up_to_a_number(names, most: int, text: str) -> None:
    assert listed(names, most) == text


def test_four_names_are_shown_unless_told_otherwise() -> None:
    assert listed(list('abcdef')) == 'a, b, c, d and 2 more'


@pytest.mark.parametrize(
    ('error', 'text'),
    [
        (ValueError('expected 3,\n  got\t4'), 'ValueError: expected 3, got 4'),
        (KeyError('name'), "KeyError: 'name'"),
        (MemoryError(), 'MemoryError'),
        (OSError('\n'), 'OSError'),
        (
            OSError('cannot identify image file <_io.BytesIO object at 0x7f01ab>'),
            'OSError: cannot identify image file',
        ),
    ],
)
def test_an_error_takes_one_line(error: Exception, text: str) -> None:
    assert short(error) == text


def test_a_long_error_is_cut() -> None:
    assert short(ValueError('x' * 500), most=10) == f'ValueError: {"x" * 10}'
    assert len(short(ValueError('x' * 500))) == len('ValueError: ') + 200
