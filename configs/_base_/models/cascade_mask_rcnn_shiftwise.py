# Cascade Mask R-CNN, 4conv1fc GIoU heads, on SW-T v2.
# SyncBN becomes BN by itself where there is nothing to synchronise (one process, or no GPU).
_base_ = ['mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py']

norm_cfg = dict(type='SyncBN', requires_grad=True)
# The three box heads differ only in how far the boxes that they refine are still off.
bbox_head = dict(
    type='ConvFCBBoxHead',
    num_shared_convs=4,
    num_shared_fcs=1,
    conv_out_channels=256,
    reg_class_agnostic=False,
    reg_decoded_bbox=True,  # GIoU compares boxes, not their offsets
    norm_cfg=norm_cfg,
    loss_bbox=dict(type='GIoULoss', loss_weight=10.0),
)
model = dict(
    backbone=dict(
        _delete_=True,
        type='ShiftWiseNet',
        arch='tiny',
        version='v2',
        drop_path_rate=0.4,
        layer_scale_init_value=1.0,
        norm_cfg=norm_cfg,
    ),
    neck=dict(in_channels=[80, 160, 320, 640]),
    roi_head=dict(bbox_head=[{**head, **bbox_head} for head in _base_.model.roi_head.bbox_head]),
)
