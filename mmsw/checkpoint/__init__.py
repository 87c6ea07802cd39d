"""Checkpoint files: safe reading, whole writing, and the authors' layout."""

from mmsw.errors import CheckpointError

from .addresses import check_address, fetched_once, read_checkpoint
from .classifier import from_classifier, to_classifier
from .files import (
    allow_checkpoint_classes,
    load_checkpoint_file,
    only_data_is_read,
    save_checkpoint_file,
)
from .pretrained import fill_network, load_pretrained
from .pruned import settle_zeros, warn_of_bare_zeros
from .records import Recorded, read_records, training_arguments
from .release import load_release_checkpoint, to_state_dict
from .shape import NetworkShape

__all__ = [
    'CheckpointError',
    'NetworkShape',
    'Recorded',
    'allow_checkpoint_classes',
    'check_address',
    'fetched_once',
    'fill_network',
    'from_classifier',
    'load_checkpoint_file',
    'load_pretrained',
    'load_release_checkpoint',
    'only_data_is_read',
    'read_checkpoint',
    'read_records',
    'save_checkpoint_file',
    'settle_zeros',
    'to_classifier',
    'to_state_dict',
    'training_arguments',
    'warn_of_bare_zeros',
]
