"""read_records: what a file says about itself, in every form that files have."""

from __future__ import annotations

import argparse

import pytest
import torch

from mmsw.checkpoint import CheckpointError, Recorded, read_records, training_arguments

META = "the file's meta data"
ARGUMENTS = "the file's training arguments"


@pytest.mark.parametrize(
    ('contents', 'expected'),
    [
        ([1, 2], None),
        ({}, None),
        ({'args': None, 'meta': None}, None),
        ({'args': argparse.Namespace(model='ShiftWise_v2')}, None),
        ({'args': argparse.Namespace(kernel_size=None, N_rep=None)}, None),
        (
            {'args': argparse.Namespace(kernel_size=[51, 49, 47, 13, 3], N_rep=4)},
            Recorded(ARGUMENTS, (51, 49, 47, 13), 4),
        ),
        (
            {'args': {'kernel_size': (31, 29, 27, 13, 5), 'ghost_ratio': 0.3}},
            Recorded(ARGUMENTS, (31, 29, 27, 13), None, 0.3),
        ),
        ({'args': {'kernel_size': 51, 'N_rep': 2}}, Recorded(ARGUMENTS, None, 2)),
        (
            {'meta': {'backbone': {'big_kernels': [9, 7, 7, 5], 'num_reps': 3}}},
            Recorded(META, (9, 7, 7, 5), 3),
        ),
        (
            {'meta': {'mmsw': {'format': 2, 'backbone': {'big_kernels': [9, 7], 'num_reps': 3}}}},
            Recorded(META, (9, 7), 3),
        ),
        (
            {
                'meta': {'mmsw': {'format': 2, 'backbone': None}},
                'args': argparse.Namespace(N_rep=2),
            },
            Recorded(ARGUMENTS, None, 2),
        ),
        ({'meta': {'iter': 3, 'cfg': 'model = 1'}}, None),
    ],
)
def test_forms(contents, expected) -> None:
    assert read_records(contents) == expected


@pytest.mark.parametrize(
    'contents',
    [
        {'meta': {'mmsw': {'format': 2, 'backbone': {'num_reps': torch.tensor([4, 4])}}}},
        {'meta': {'backbone': {'big_kernels': [9, torch.tensor(7)]}}},
        {'args': {'ghost_ratio': torch.tensor(0.23)}},
    ],
)
def test_tensors_among_the_settings_are_refused(contents) -> None:
    with pytest.raises(CheckpointError, match=r'a\.pth is damaged: it records a tensor where'):
        read_records(contents, 'a.pth')


def test_arguments_of_either_form() -> None:
    assert training_arguments({'args': {'N_rep': 1}}) == {'N_rep': 1}
    assert training_arguments({'args': argparse.Namespace(N_rep=1)}) == {'N_rep': 1}
