# The ADE20K recipe with a network, images and schedule small enough for a test.
_base_ = ['../../configs/upernet_sw_t_ade20k.py']

model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(
        arch=dict(_delete_=True, depths=[1, 1, 1, 1], dims=[8, 8, 8, 8]),
        big_kernels=(7, 7, 5, 3),
        init_cfg=None,
    ),
    decode_head=dict(in_channels=[8, 8, 8, 8], channels=8),
    auxiliary_head=dict(in_channels=8, channels=8),
    test_cfg=dict(crop_size=(64, 64), stride=(42, 42)),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=(64, 64)),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
