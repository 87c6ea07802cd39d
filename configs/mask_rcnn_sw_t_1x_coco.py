# Mask R-CNN, SW-T v2, COCO: 12 epochs at one scale, the usual yardstick.
# A recipe of this project, never trained to the end: the authors publish none for it.
_base_ = [
    '_base_/models/mask_rcnn_shiftwise.py',
    '_base_/datasets/coco_instance.py',
    '_base_/schedules/adamw_1x.py',
    '_base_/detection_runtime.py',
]

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='checkpoints/sw_t_v2_imagenet1k.pth'))
)
