# RetinaNet (one stage, boxes only), ResNet-18, on your own images with a COCO annotation file: to
# compare with the small shift-wise network of own_retinanet_sw_mini.py on a CPU, by the same
# optimizer. One command trains and compares them, each from random values:
#
#   python tools/benchmark_transfer.py --out work_dirs/compare --starts scratch --data data/mine \
#       --config configs/own_retinanet_sw_mini.py configs/own_retinanet_r18.py
#
# tools/train.py starts it from its ImageNet checkpoint, which is downloaded. --from-scratch trains
# without one.
_base_ = ['own_retinanet_sw_mini.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=18,
        out_indices=(1, 2, 3),
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        norm_eval=False,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18'),
    ),
    neck=dict(in_channels=[128, 256, 512]),
)
optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0, bias_decay_mult=0.0),
)
