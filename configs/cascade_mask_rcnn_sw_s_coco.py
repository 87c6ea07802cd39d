# Cascade Mask R-CNN, SW-S v2, COCO: the recipe of SW-T.
# Nobody has published an ImageNet checkpoint of it: train one, or pass --from-scratch.
_base_ = ['cascade_mask_rcnn_sw_t_coco.py']

model = dict(
    backbone=dict(
        arch='small',
        init_cfg=dict(checkpoint='checkpoints/sw_s_v2_imagenet1k.pth'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
