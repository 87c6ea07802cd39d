# A ResNet-18 of 18 channels instead of 64, to compare with sw_mini_camvid.py at equal
# multiply-adds.
_base_ = ['sw_mini_camvid.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNetV1c',
        depth=18,
        stem_channels=18,
        base_channels=18,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
    ),
    decode_head=dict(in_channels=[18, 36, 72, 144]),
)
optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0, bias_decay_mult=0.0),
)
