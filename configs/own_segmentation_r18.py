# UPerNet, ResNet-18, on your own images and label maps: to compare with the small shift-wise
# network of own_segmentation_sw_mini.py on a CPU, by the same optimizer. One command trains and
# compares them, each from random values:
#
#   python tools/benchmark_transfer.py --out work_dirs/compare --starts scratch --data data/mine \
#       --config configs/own_segmentation_sw_mini.py configs/own_segmentation_r18.py
#
# tools/train.py starts it from its ImageNet checkpoint, which is downloaded. --from-scratch trains
# without one.
_base_ = ['own_segmentation_sw_mini.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNetV1c',
        depth=18,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://resnet18_v1c'),
    ),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
)
optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0, bias_decay_mult=0.0),
)
