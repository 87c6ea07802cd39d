# Mask R-CNN on a small sparse shift-wise network: the demonstration's digits as objects, in minutes
# on two CPU cores. The data and the checkpoint are those of `make demo`:
#
#   python tools/make_demo_data.py data/demo
#   python tools/make_demo_checkpoint.py --data data/demo --out work_dirs/demo/pretrained_sparse.pth
#   python tools/train.py configs/demo/mask_rcnn_sw_mini_scenes.py
#   python tools/test.py configs/demo/mask_rcnn_sw_mini_scenes.py \
#       work_dirs/mask_rcnn_sw_mini_scenes/iter_600.pth --show-dir work_dirs/demo/boxes
_base_ = [
    '../_base_/models/mask_rcnn_shiftwise.py',
    '../_base_/models/shiftwise_mini.py',
    '../_base_/datasets/coco_mini_scenes.py',
    '../_base_/mini_detection_runtime.py',
]

channels = 64
# Notes are 33 to 91 pixels wide, in scenes of 160: three levels of the pyramid see them all.
strides = [4, 8, 16, 32]
model = dict(
    backbone=dict(_delete_=True, **_base_.mini_backbone),
    neck=dict(in_channels=_base_.mini_backbone.arch.dims, out_channels=channels, num_outs=4),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[8], ratios=[1.0], strides=strides),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels),
        bbox_head=dict(in_channels=channels, fc_out_channels=256, num_classes=10),
        mask_roi_extractor=dict(out_channels=channels),
        mask_head=dict(
            num_convs=2, in_channels=channels, conv_out_channels=channels, num_classes=10
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=32)),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(max_per_img=20),
    ),
)
