"""The public API: which names there are, what each says of itself, and the pinned signatures.

A name that goes, or comes, is a change for every program that uses this package: it is made here as
well, knowingly.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable

import pytest
from torch import nn

import mmsw
from mmsw.checkpoint import load_release_checkpoint
from mmsw.models import ShiftWiseConv2d, ShiftWiseNet
from mmsw.ops import (
    ShiftPattern,
    available_backends,
    shift_add,
    shift_wise_conv2d,
    use_backend,
)

PUBLIC = {
    'mmsw': '__version__ checkpoint datasets engine models ops sparsity',
    'mmsw.analysis': 'draw_operator effective_receptive_field',
    'mmsw.apis': (
        'ConversionReport ExportReport ExportedModel PortableRunner PredictReport PruneReport '
        'UsageError analyze_sparsity build_runner build_test_runner check_data compare_sparsity '
        'convert_checkpoint export_model inference init_model iter_inference load_config '
        'load_exported predict_files prune_model register_toolbox set_data_root'
    ),
    'mmsw.checkpoint': (
        'CheckpointError FORMAT NetworkShape Recorded add_record allow_checkpoint_classes '
        'check_address check_masks_placed fetched_once fill_network from_classifier '
        'load_checkpoint_file load_pretrained load_release_checkpoint network_record '
        'only_data_is_read read_checkpoint read_record read_records save_checkpoint_file '
        'settle_zeros to_classifier to_state_dict training_arguments undo_torch_prune '
        'warn_of_bare_zeros warn_of_empty_masks'
    ),
    'mmsw.datasets': (
        'DataError LoadValidAnnotations LoadValidImageFromFile MapLabelValues OwnData'
    ),
    'mmsw.demo': (
        'CLASSES COCO_CLASSES PALETTE DemoClassifier DemoCutoutPreprocessor DemoCutouts DemoData '
        'DemoLabelAccuracy DemoNarrowInit draw_small_network make_demo_data'
    ),
    'mmsw.engine': (
        'DistillationHook DynamicSparsityHook GradualPruningHook KeepSparsityHook '
        'LayerDepthDecayOptimWrapperConstructor MonitorHook SparsityReportHook '
        'keep_zero_after_steps'
    ),
    'mmsw.models': (
        'LargeKernelReport PooledNorm SLaK ShiftWiseConv2d ShiftWiseLargeKernel ShiftWiseNet '
        'convert_large_kernels'
    ),
    'mmsw.ops': (
        'BackendUnavailableError DepthwiseDecomposition ShiftPattern available_backends '
        'bias_gelu cross_conv2d decompose_depthwise depthwise_conv2d shift_add shift_wise_conv2d '
        'use_backend'
    ),
    'mmsw.sparsity': (
        'DenseGradients Density DynamicSettings DynamicSparsity Pattern Pruning '
        'PruningSettings SparsityReport ZerosFound apportion attach_masks '
        'attach_masks_of_zeros attach_saved_masks '
        'drop_and_grow erk_counts exchange_rate from_torch_prune keep_best keep_largest '
        'layer_of lost_zeros magnitude_masks masked_layers masks masks_copied masks_from_zeros '
        'num_exchanged pattern_of report reset_state set_masks shared_units uniform_counts'
    ),
}
CONSTANTS = {'CLASSES', 'COCO_CLASSES', 'FORMAT', 'PALETTE', '__version__'}  # without docstrings

REQUIRED = inspect.Parameter.empty
PINNED = {  # parameters in their order, with defaults; others may follow
    ShiftPattern.draw: dict(
        big_kernel=REQUIRED, small_kernel=REQUIRED, channels=REQUIRED, num_reps=REQUIRED, seed=123
    ),
    shift_add: dict(conv_out=REQUIRED, pattern=REQUIRED, backend=None),
    shift_wise_conv2d: dict(x=REQUIRED, weight=REQUIRED, pattern=REQUIRED, backend=None),
    available_backends: {},
    use_backend: dict(name=REQUIRED),
    ShiftWiseConv2d: dict(
        in_channels=REQUIRED,
        out_channels=REQUIRED,
        kernel_size=REQUIRED,
        small_kernel=3,
        ghost_ratio=0.23,
        num_paths=2,
        num_reps=4,
        version='v2',
        norm_cfg=None,
    ),
    ShiftWiseNet: dict(
        arch='tiny',
        version='v2',
        big_kernels=(51, 49, 47, 13),
        small_kernel=None,
        ghost_ratio=0.23,
        num_paths=2,
        num_reps=4,
        in_channels=3,
        drop_path_rate=0.0,
        layer_scale_init_value=1e-6,
        out_indices=(0, 1, 2, 3),
        frozen_stages=-1,
        norm_eval=False,
        with_cp=False,
        norm_cfg=None,
        backend='auto',
        init_cfg=None,
    ),
    ShiftWiseNet.switch_to_deploy: dict(self=REQUIRED),
    mmsw.sparsity.report: dict(net=REQUIRED),
    load_release_checkpoint: dict(path=REQUIRED),
}


@pytest.mark.parametrize('name', PUBLIC)
def test_public_names_are_those_listed_here(name: str) -> None:
    module = importlib.import_module(name)
    assert sorted(module.__all__) == sorted(PUBLIC[name].split())
    assert module.__doc__


@pytest.mark.parametrize('name', PUBLIC)
def test_every_public_name_exists_and_says_what_it_is(name: str) -> None:
    module = importlib.import_module(name)
    for public in module.__all__:
        value = getattr(module, public)
        if public in CONSTANTS:
            continue
        assert inspect.ismodule(value) or callable(value), public
        inherited = [base.__doc__ for base in getattr(value, '__mro__', ())[1:]]
        assert value.__doc__, public
        assert value.__doc__ not in inherited, public


@pytest.mark.parametrize('called', PINNED, ids=lambda called: called.__qualname__)
def test_pinned_signature(called: Callable) -> None:
    found = inspect.signature(called).parameters
    pinned = PINNED[called]
    first = list(found)[: len(pinned)]
    assert first == list(pinned)
    assert {name: found[name].default for name in first} == pinned
    assert all(found[name].kind == inspect.Parameter.POSITIONAL_OR_KEYWORD for name in first)
    optional = [found[name].default is not REQUIRED for name in list(found)[len(pinned) :]]
    assert all(optional), 'a caller of the pinned form would lack an argument'


def test_normalisation_is_batch_norm_unless_the_config_says_otherwise() -> None:
    """``norm_cfg=None`` stands for the pinned ``dict(type='BN')``."""
    small = dict(arch=dict(depths=[1, 1, 1, 1], dims=[8, 8, 8, 8]), big_kernels=(9, 7, 7, 5))
    for module in (ShiftWiseConv2d(8, 8, 9), ShiftWiseNet(**small)):
        kinds = {type(part) for part in module.modules() if hasattr(part, 'running_mean')}
        assert kinds == {nn.BatchNorm2d}
