"""What the tests of pretraining share."""

from __future__ import annotations

from pathlib import Path

from config_helpers import ROOT
from mmengine.config import Config
from torch import Tensor

from mmsw.apis import load_config
from mmsw.checkpoint import load_pretrained, load_release_checkpoint, to_classifier
from mmsw.models import ShiftWiseNet

PRETRAIN = ROOT / 'configs' / 'pretrain'
SW_T = PRETRAIN / 'sw_t_in1k.py'
CONFIGS = sorted(path.name for path in PRETRAIN.glob('*.py'))
NETWORKS = [  # config, golden name, config for dense prediction
    ('sw_t_in1k.py', 'v2_tiny', 'upernet_sw_t_ade20k.py'),
    ('sw_s_in1k.py', 'v2_small', 'upernet_sw_s_ade20k.py'),
    ('sw_v1_t_in1k.py', 'v1_tiny', 'upernet_sw_v1_t_ade20k.py'),
    ('sw_v1_s_in1k.py', 'v1_small', None),
]


CLASSES = 6  # of the data set that :func:`small` is for


def mmpretrain_problem() -> str | None:
    """Why mmpretrain cannot be used here."""
    try:
        import mmpretrain.utils

        mmpretrain.utils.register_all_modules(init_default_scope=False)
    except Exception as error:  # torchvision of another torch fails in its own ways
        return f'mmpretrain cannot be imported here ({error})'
    return None


PROBLEM = mmpretrain_problem()


def published_classifier(path: Path) -> tuple[ShiftWiseNet, dict[str, Tensor]]:
    """Backbone as for pretraining in the size of a miniature file, and the file in our names."""
    net = ShiftWiseNet(
        arch=dict(depths=[1, 1, 2, 1], dims=[16, 24, 32, 40]), out_indices=(3,), output_norm=False
    )
    load_pretrained(net, path)
    return net.eval(), to_classifier(load_release_checkpoint(path))


def small(name: str, data: Path, num_classes: int = CLASSES) -> Config:
    """A config of pretraining with a network and a data set that are quick on a CPU."""
    cfg = load_config(PRETRAIN / name, data_root=data)
    arch = dict(_delete_=True, depths=[1, 1, 1, 1], dims=[8, 8, 8, 8])
    cfg.merge_from_dict(
        {
            'model.backbone': dict(arch=arch, big_kernels=(9, 7, 7, 5)),
            'model.neck.in_channels': 8,
            'model.head': dict(in_channels=8, num_classes=num_classes),
            'model.data_preprocessor.num_classes': num_classes,
            'train_cfg.max_epochs': 1,
            'param_scheduler': [],
            'default_hooks.checkpoint.save_best': None,
        }
    )
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[loader].update(batch_size=4, num_workers=0, persistent_workers=False)
        cfg[loader].dataset.type = 'CustomDataset'
        del cfg[loader].dataset['split']
    if cfg.custom_hooks[0].type == 'DynamicSparsityHook':
        cfg.custom_hooks[0].update(interval=1, align_interval=2)
    return cfg
