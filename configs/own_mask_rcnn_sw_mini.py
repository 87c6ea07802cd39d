# Mask R-CNN on the small shift-wise network of the demonstration, on your own images with a COCO
# annotation file: minutes on two CPU cores. It starts from scratch, or with --pretrained from the
# checkpoint of the demonstration, work_dirs/demo/pretrained_sparse.pth. What else to write or to
# type: see own_mask_rcnn_sw_t.py.
_base_ = [
    '_base_/models/mask_rcnn_shiftwise.py',
    '_base_/models/shiftwise_mini.py',
    '_base_/datasets/own_coco.py',
    '_base_/own_detection_runtime.py',
]

own_data = dict(
    image_size=(320, 320),
    scale_range=(0.8, 1.25),
    passes=20,
    iterations=(600, 20000),
    learning_rate=2e-3,
)
channels = 64
model = dict(
    backbone=dict(_delete_=True, **{**_base_.mini_backbone, 'init_cfg': None}),
    neck=dict(in_channels=_base_.mini_backbone.arch.dims, out_channels=channels),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[4]),  # images are small: objects of 16 to 256 pixels
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels),
        bbox_head=dict(in_channels=channels, fc_out_channels=256),
        mask_roi_extractor=dict(out_channels=channels),
        mask_head=dict(num_convs=2, in_channels=channels, conv_out_channels=channels),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=500, max_per_img=300),
        rcnn=dict(sampler=dict(num=128)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=300)),
)
