# The demonstration's Mask R-CNN on a ResNet-18 instead of a shift-wise network, to compare with, by
# the same optimizer, schedule and data. It starts from random values:
#
#   python tools/train.py configs/demo/mask_rcnn_r18_scenes.py
#
# `make demo-compare` trains it and draws its predictions below those of the shift-wise network.
_base_ = ['mask_rcnn_sw_mini_scenes.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=18,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        norm_eval=False,
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0, bias_decay_mult=0.0),
)
custom_hooks = []
