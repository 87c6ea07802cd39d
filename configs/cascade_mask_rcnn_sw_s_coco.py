# Cascade Mask R-CNN, SW-S of the second generation, COCO: the recipe of SW-T.
# The authors publish no ImageNet checkpoint of it: bring your own, or train with --from-scratch.
_base_ = ['cascade_mask_rcnn_sw_t_coco.py']

model = dict(
    backbone=dict(
        arch='small',
        init_cfg=dict(checkpoint='checkpoints/sw_s_v2_imagenet1k.pth'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
