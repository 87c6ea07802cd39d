# UPerNet on a small sparse shift-wise network: the demonstration, minutes on two CPU cores.
# `make demo` does all of it; by hand:
#
#   python tools/make_demo_data.py data/demo
#   python tools/make_demo_checkpoint.py --data data/demo --out work_dirs/demo/pretrained_sparse.pth
#   python tools/train.py configs/demo/upernet_sw_mini_scenes.py --work-dir work_dirs/demo/finetune
#   python tools/demo_report.py work_dirs/demo
_base_ = [
    '../_base_/models/upernet_shiftwise.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/adamw_160k.py',
    '../_base_/segmentation_runtime.py',
    '../_base_/models/shiftwise_mini.py',
    '../_base_/datasets/demo_scenes.py',
]

crop_size = (128, 128)
channels = 64
dims = _base_.mini_backbone.arch.dims

model = dict(
    _scope_='mmseg',  # also where another toolbox's config or mmengine.hub builds it
    data_preprocessor=dict(size=crop_size),
    backbone=dict(_delete_=True, **_base_.mini_backbone),
    # A short schedule has no time to grow the last layer from mmseg's deviation of 0.01.
    decode_head=dict(
        in_channels=dims,
        channels=channels,
        dropout_ratio=0.0,
        num_classes=11,
        init_cfg=dict(type='Normal', std=0.1, override=dict(name='conv_seg')),
    ),
    auxiliary_head=None,
    test_cfg=dict(_delete_=True, mode='whole'),
)

# The ADE20K layout with classes of its own. Digits are never mirrored.
data_root = 'data/demo/ADEChallengeData2016'
metainfo = dict(
    classes=('background', *_base_.digits),
    palette=[(90, 90, 90), *_base_.digit_palette],
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(160, 160), ratio_range=(0.75, 1.4), keep_ratio=True),
    dict(type='RandomRotate', prob=0.5, degree=12),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='PhotoMetricDistortion', hue_delta=90),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale_factor=r, keep_ratio=True) for r in (0.75, 1.0, 1.25)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
scenes = dict(type='BaseSegDataset', data_root=data_root, metainfo=metainfo, reduce_zero_label=True)
train_dataloader = dict(
    batch_size=8, num_workers=1, dataset=dict(**scenes, pipeline=train_pipeline)
)
val_dataloader = dict(num_workers=1, dataset=dict(**scenes, pipeline=test_pipeline))
test_dataloader = val_dataloader

max_iters = 900
val_interval = 300
optim_wrapper = dict(
    optimizer=dict(lr=2e-3),
    clip_grad=dict(max_norm=5.0),
)
auto_scale_lr = dict(base_batch_size=8)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=50, end=max_iters),
]
auto_scale_lr = dict(base_batch_size=8)
train_cfg = dict(max_iters=max_iters, val_interval=val_interval)
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(interval=val_interval, max_keep_ckpts=1, save_best=None),
)
custom_hooks = [dict(type='SparsityReportHook', require_sparse=True)]
randomness = dict(seed=0)
