# The demonstration's UPerNet on a ResNet-18 instead of a shift-wise network, to compare with:
#
#   python tools/benchmark_transfer.py --out work_dirs/transfer_r18 --starts scratch \
#       --config configs/demo/upernet_sw_mini_scenes.py configs/demo/upernet_r18_scenes.py
_base_ = ['upernet_sw_mini_scenes.py']

model = dict(
    _scope_='mmseg',  # also where another toolbox's config or mmengine.hub builds it
    backbone=dict(
        _delete_=True,
        type='ResNetV1c',
        depth=18,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
    ),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
)
optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0, bias_decay_mult=0.0),
)
custom_hooks = []
