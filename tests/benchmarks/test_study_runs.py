"""Runs of a benchmark of training: what is left of them by earlier versions."""

from __future__ import annotations

import json

import pytest

from mmsw.benchmarks.locks import exclusive
from mmsw.benchmarks.runs import Run, check_not_mixed, result_of
from mmsw.errors import UsageError


def test_files_of_earlier_versions_are_read(tmp_path):
    """They do not say what they are."""
    run = Run(tmp_path, {'budget': 4, 'versions': {'torch': '2'}}, 0)
    result = {'digest': run.digest, 'scores': {'mIoU': 50.0}}
    (tmp_path / 'settings.json').write_text(json.dumps(run.settings))
    (tmp_path / 'result.json').write_text(json.dumps(result))
    check_not_mixed([run])
    assert result_of(run) == result
    with pytest.raises(UsageError, match='budget 4 there, 9 now'):
        check_not_mixed([Run(tmp_path, {**run.settings, 'budget': 9}, 0)])


def test_a_damaged_result_is_named(tmp_path):
    (tmp_path / 'result.json').write_text('{}')
    with pytest.raises(UsageError, match=r'result\.json is of other settings \(digest None'):
        result_of(Run(tmp_path, {}, 0))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / 'file').touch()
    with (
        pytest.raises(UsageError, match=r'file/out cannot be written to: .*name another --out'),
        exclusive(tmp_path / 'file/out'),
    ):
        pass
