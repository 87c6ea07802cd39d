# RetinaNet on SW-T v2.
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='ShiftWiseNet',
        arch='tiny',
        version='v2',
        drop_path_rate=0.2,
        layer_scale_init_value=1.0,
        out_indices=(1, 2, 3),  # the finest map is not used
        norm_cfg=dict(type='SyncBN', requires_grad=True),
    ),
    neck=dict(in_channels=[160, 320, 640], start_level=0),
)
