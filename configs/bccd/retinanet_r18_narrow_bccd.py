# A ResNet-18 of 18 channels instead of 64, to compare with retinanet_sw_mini_bccd.py at equal
# multiply-adds.
_base_ = ['retinanet_sw_mini_bccd.py']

width = 18
model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=18,
        deep_stem=True,
        stem_channels=width,
        base_channels=width,
        out_indices=(1, 2, 3),
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        norm_eval=False,
    ),
    neck=dict(in_channels=[2 * width, 4 * width, 8 * width]),
)
optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0, bias_decay_mult=0.0),
)
