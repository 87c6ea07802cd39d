# Cascade Mask R-CNN, SW-T of the first generation, COCO: the recipe of the second.
# The authors publish no ImageNet checkpoint of it: bring your own, or train with --from-scratch.
_base_ = ['cascade_mask_rcnn_sw_t_coco.py']

model = dict(
    backbone=dict(
        version='v1',
        init_cfg=dict(checkpoint='checkpoints/sw_t_v1_imagenet1k.pth'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
