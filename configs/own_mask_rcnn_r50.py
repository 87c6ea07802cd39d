# Mask R-CNN, ResNet-50, on your own images with a COCO annotation file: to compare with
# own_mask_rcnn_sw_t.py, which says what to write or to type. Both learn from the same data for as
# long. One command trains and compares them:
#
#   python tools/benchmark_transfer.py --out work_dirs/compare --starts config --data data/mine \
#       --config configs/own_mask_rcnn_sw_t.py configs/own_mask_rcnn_r50.py
#
# The ImageNet checkpoint is downloaded. --from-scratch trains without one. Unlike in mmdetection's
# recipes all stages and norms learn, as those of the shift-wise network do.
_base_ = ['own_mask_rcnn_sw_t.py']

own_data = dict(learning_rate=0.02)  # for SGD
model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=50,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        norm_eval=False,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='SGD', lr=None, momentum=0.9, weight_decay=1e-4),
    constructor='DefaultOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True),
)
