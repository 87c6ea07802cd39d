"""Building and running experiments from config files; what the tools and notebooks call."""

from mmsw.errors import UsageError

from .config import load_config, register_toolbox
from .convert import ConversionReport, convert_checkpoint
from .data import check_data
from .data_root import set_data_root
from .export import ExportedModel, ExportReport, export_model, load_exported
from .inference import inference, init_model, iter_inference
from .predict import PredictReport, predict_files
from .prune import PruneReport, prune_model
from .runner import PortableRunner, build_runner, build_test_runner
from .sparsity_analysis import analyze_sparsity, compare_sparsity

__all__ = [
    'ConversionReport',
    'ExportReport',
    'ExportedModel',
    'PortableRunner',
    'PredictReport',
    'PruneReport',
    'UsageError',
    'analyze_sparsity',
    'build_runner',
    'build_test_runner',
    'check_data',
    'compare_sparsity',
    'convert_checkpoint',
    'export_model',
    'inference',
    'init_model',
    'iter_inference',
    'load_config',
    'load_exported',
    'predict_files',
    'prune_model',
    'register_toolbox',
    'set_data_root',
]
