# What both configs of this folder inherit.
from mmengine.hooks import CheckpointHook, LoggerHook
from mmengine.visualization import LocalVisBackend
from torch.optim import AdamW

from mmsw.engine import LayerDepthDecayOptimWrapperConstructor, SparsityReportHook

default_hooks = dict(
    logger=dict(type=LoggerHook, interval=1),
    checkpoint=dict(type=CheckpointHook, interval=2, by_epoch=False),
)
custom_hooks = [dict(type=SparsityReportHook)]
vis_backends = [dict(type=LocalVisBackend)]
optim_wrapper = dict(
    optimizer=dict(type=AdamW, lr=1e-4, weight_decay=0.05),
    constructor=LayerDepthDecayOptimWrapperConstructor,
    paramwise_cfg=dict(decay_rate=0.8),
)
log_processor = dict(by_epoch=False)
