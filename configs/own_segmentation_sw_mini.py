# UPerNet on the small shift-wise network of the demonstration, on your own images and label maps:
# minutes on two CPU cores. It starts from scratch, or from the checkpoint of the demonstration:
#
#   python tools/train.py configs/own_segmentation_sw_mini.py --data-root data/mine \
#       --cfg-options own_data.classes=background,road,car \
#       --pretrained work_dirs/demo/pretrained_sparse.pth
#
# What else to write or to type: see own_segmentation_sw_t.py.
_base_ = [
    '_base_/models/upernet_shiftwise.py',
    '_base_/models/shiftwise_mini.py',
    '_base_/datasets/own_segmentation.py',
    '_base_/own_segmentation_runtime.py',
]

own_data = dict(
    scale_range=(0.75, 1.5),
    crop_size=(256, 256),
    passes=25,
    iterations=(600, 20000),
    learning_rate=3e-3,
)
dims = _base_.mini_backbone.arch.dims
model = dict(
    _scope_='mmseg',  # also where another toolbox's config or mmengine.hub builds it
    backbone=dict(_delete_=True, **{**_base_.mini_backbone, 'init_cfg': None}),
    # A short schedule has no time to grow the last layer from mmseg's deviation of 0.01.
    decode_head=dict(
        in_channels=dims,
        channels=64,
        dropout_ratio=0.0,
        init_cfg=dict(type='Normal', std=0.1, override=dict(name='conv_seg')),
    ),
    auxiliary_head=None,
    test_cfg=dict(_delete_=True, mode='whole'),  # less work than windows that overlap
)
