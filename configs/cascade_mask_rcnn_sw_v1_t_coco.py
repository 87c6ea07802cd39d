# Cascade Mask R-CNN, SW-T v1, COCO: the recipe of v2.
# Nobody has published an ImageNet checkpoint of it: train one, or pass --from-scratch.
_base_ = ['cascade_mask_rcnn_sw_t_coco.py']

model = dict(
    backbone=dict(
        version='v1',
        init_cfg=dict(checkpoint='checkpoints/sw_t_v1_imagenet1k.pth'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
