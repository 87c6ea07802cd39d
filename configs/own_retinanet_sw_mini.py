# RetinaNet (one stage, boxes only) on the small shift-wise network of the demonstration, on your
# own images with a COCO annotation file: minutes on two CPU cores. It starts from scratch, or with
# --pretrained from the checkpoint of the demonstration, work_dirs/demo/pretrained_sparse.pth. What
# else to write or to type: see own_mask_rcnn_sw_t.py.
_base_ = [
    '_base_/models/retinanet_shiftwise.py',
    '_base_/models/shiftwise_mini.py',
    '_base_/datasets/own_coco.py',
    '_base_/own_detection_runtime.py',
]

own_data = dict(
    masks=False,
    image_size=(320, 320),
    scale_range=(0.8, 1.25),
    passes=20,
    iterations=(600, 20000),
    learning_rate=2e-3,
)
channels = 64
norm_cfg = dict(type='GN', num_groups=8, requires_grad=True)  # what starts from scratch needs one
model = dict(
    backbone=dict(
        _delete_=True, **{**_base_.mini_backbone, 'init_cfg': None}, out_indices=(1, 2, 3)
    ),
    neck=dict(
        in_channels=_base_.mini_backbone.arch.dims[1:], out_channels=channels, norm_cfg=norm_cfg
    ),
    bbox_head=dict(
        in_channels=channels,
        feat_channels=channels,
        stacked_convs=2,
        norm_cfg=norm_cfg,
        anchor_generator=dict(octave_base_scale=2),  # images are small: objects from 16 pixels on
    ),
)
