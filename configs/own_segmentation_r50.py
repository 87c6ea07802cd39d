# UPerNet, ResNet-50, on your own images and label maps: to compare with own_segmentation_sw_t.py,
# which says what to write or to type. Both learn from the same data for as long. One command trains
# and compares them:
#
#   python tools/benchmark_transfer.py --out work_dirs/compare --starts config --data data/mine \
#       --config configs/own_segmentation_sw_t.py configs/own_segmentation_r50.py
#
# The ImageNet checkpoint is downloaded. --from-scratch trains without one.
_base_ = ['own_segmentation_sw_t.py']

own_data = dict(learning_rate=0.01)  # for SGD
model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNetV1c',
        depth=50,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://resnet50_v1c'),
    ),
    decode_head=dict(in_channels=[256, 512, 1024, 2048]),
    auxiliary_head=dict(in_channels=1024),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='SGD', lr=None, momentum=0.9, weight_decay=5e-4),
    constructor='DefaultOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True),
)
