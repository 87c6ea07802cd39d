"""Configs and models that the tests of configs and runners share."""

from pathlib import Path

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmsw.apis import register_toolbox

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / 'configs' / 'upernet_sw_t_ade20k.py'
MINI = ROOT / 'tests' / 'data' / 'upernet_mini_ade20k.py'
DETECTOR = ROOT / 'tests' / 'data' / 'retinanet_mini_coco.py'


def own_options(path: str | Path) -> dict:
    """Options that a config for own data needs to be read without data: it has two classes then."""
    return {'own_data.classes': ('a', 'b')} if Path(path).stem.startswith('own_') else {}


def build_model(cfg: Config) -> nn.Module:
    init_default_scope(register_toolbox(cfg))
    return MODELS.build(cfg.model)


def count_parameters(module: nn.Module) -> int:
    return sum(param.numel() for param in module.parameters())


def has_sync_bn(module: nn.Module) -> bool:
    return any(isinstance(part, nn.SyncBatchNorm) for part in module.modules())
