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
from .format import FORMAT, add_record, network_record, read_record
from .pretrained import fill_network, load_pretrained
from .pruned import (
    check_masks_placed,
    settle_zeros,
    undo_torch_prune,
    warn_of_bare_zeros,
    warn_of_empty_masks,
)
from .records import Recorded, read_records, training_arguments
from .release import load_release_checkpoint, to_state_dict
from .shape import NetworkShape

__all__ = [
    'FORMAT',
    'CheckpointError',
    'NetworkShape',
    'Recorded',
    'add_record',
    'allow_checkpoint_classes',
    'check_address',
    'check_masks_placed',
    'fetched_once',
    'fill_network',
    'from_classifier',
    'load_checkpoint_file',
    'load_pretrained',
    'load_release_checkpoint',
    'network_record',
    'only_data_is_read',
    'read_checkpoint',
    'read_record',
    'read_records',
    'save_checkpoint_file',
    'settle_zeros',
    'to_classifier',
    'to_state_dict',
    'training_arguments',
    'undo_torch_prune',
    'warn_of_bare_zeros',
    'warn_of_empty_masks',
]
