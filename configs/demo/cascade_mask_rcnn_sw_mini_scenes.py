# Cascade Mask R-CNN on the small sparse shift-wise network: the COCO recipe's heads, narrow, on the
# demonstration scenes. Data and checkpoint: see mask_rcnn_sw_mini_scenes.py, which is faster.
_base_ = [
    '../_base_/models/cascade_mask_rcnn_shiftwise.py',
    '../_base_/models/shiftwise_mini.py',
    '../_base_/datasets/coco_mini_scenes.py',
    '../_base_/mini_detection_runtime.py',
]

channels = 64
box_head = dict(in_channels=channels, conv_out_channels=32, fc_out_channels=256, num_classes=10)
model = dict(
    backbone=dict(_delete_=True, **_base_.mini_backbone),
    neck=dict(in_channels=_base_.mini_backbone.arch.dims, out_channels=channels, num_outs=4),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[8], ratios=[1.0], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels),
        bbox_head=[{**head, **box_head} for head in _base_.model.roi_head.bbox_head],
        mask_roi_extractor=dict(out_channels=channels),
        mask_head=dict(
            num_convs=2, in_channels=channels, conv_out_channels=channels, num_classes=10
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=[
            {**stage, 'sampler': {**stage.sampler, 'num': 32}}
            for stage in _base_.model.train_cfg.rcnn
        ],
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(max_per_img=20),
    ),
)

# An iteration takes longer than one of Mask R-CNN, so there are fewer.
max_iters = 400
param_scheduler = [_base_.param_scheduler[0], {**_base_.param_scheduler[1], 'end': max_iters}]
train_cfg = dict(max_iters=max_iters)
