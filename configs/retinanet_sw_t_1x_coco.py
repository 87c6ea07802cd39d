# RetinaNet (one stage), SW-T v2, COCO: 12 epochs at one scale.
# A recipe of this project, never trained to the end: the authors publish none for it.
_base_ = [
    '_base_/models/retinanet_shiftwise.py',
    '_base_/datasets/coco_boxes.py',
    '_base_/schedules/adamw_1x.py',
    '_base_/detection_runtime.py',
]

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='checkpoints/sw_t_v2_imagenet1k.pth'))
)
