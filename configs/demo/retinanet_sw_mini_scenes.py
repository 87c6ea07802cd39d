# RetinaNet on the small sparse shift-wise network: one stage, boxes only, the demonstration scenes.
# Data and checkpoint: see mask_rcnn_sw_mini_scenes.py.
_base_ = [
    '../_base_/models/retinanet_shiftwise.py',
    '../_base_/models/shiftwise_mini.py',
    '../_base_/datasets/coco_mini_scenes.py',
    '../_base_/mini_detection_runtime.py',
]

channels = 64
model = dict(
    backbone=dict(_delete_=True, **_base_.mini_backbone, out_indices=(1, 2, 3)),
    neck=dict(in_channels=_base_.mini_backbone.arch.dims[1:], out_channels=channels, num_outs=3),
    bbox_head=dict(
        in_channels=channels,
        feat_channels=channels,
        stacked_convs=2,
        num_classes=10,
        anchor_generator=dict(scales_per_octave=2, ratios=[1.0], strides=[8, 16, 32]),
    ),
    test_cfg=dict(nms_pre=200, max_per_img=20),
)
val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
