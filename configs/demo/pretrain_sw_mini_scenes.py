# Sparse pretraining of the demonstration's backbone, in minutes on a CPU: which digit does a cutout
# of a scene show, or is it background? The backbone of what it saves loads into every other config
# of this folder. `make demo` runs this recipe through tools/make_demo_checkpoint.py; by hand:
#
#   python tools/make_demo_data.py data/demo
#   python tools/train.py configs/demo/pretrain_sw_mini_scenes.py --work-dir work_dirs/demo/pretrain
#   python tools/train.py configs/demo/upernet_sw_mini_scenes.py \
#       --pretrained work_dirs/demo/pretrain/iter_336.pth
_base_ = ['../_base_/models/shiftwise_mini.py', '../_base_/demo_pretrain_runtime.py']

side = 64  # of what the network sees, in pixels
margin = 1.6  # side of a cutout over that: room for random views
num_classes = 11  # ten digits and background

model = dict(
    type='DemoClassifier',
    data_preprocessor=dict(
        type='DemoCutoutPreprocessor',
        side=side,
        margin=margin,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(_base_.mini_backbone, out_indices=(3,), init_cfg=dict(type='DemoNarrowInit')),
    in_channels=_base_.mini_backbone.arch.dims[-1],
    num_classes=num_classes,
)

data_root = 'data/demo/coco'
cutouts = dict(type='DemoCutouts', data_root=data_root, side=side, margin=margin)
train_dataloader = dict(
    batch_size=64,
    num_workers=0,  # all cutouts lie in memory
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        **cutouts,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        **cutouts,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='DemoLabelAccuracy')
test_evaluator = val_evaluator

max_iters = 336  # a little more than 8 passes over the cutouts
val_interval = 42
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=val_interval)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=4e-3, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.03, by_epoch=False, begin=0, end=34),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=34, end=max_iters),
]
auto_scale_lr = dict(base_batch_size=64)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=21, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=val_interval, max_keep_ckpts=1),
)
# Sparse from the first step on: which filters are kept changes until three quarters of the run.
custom_hooks = [
    dict(
        type='DynamicSparsityHook',
        start='snip',
        sparsity=0.4,
        interval=12,
        align_interval=5,
        end_iter=252,
    ),
    dict(type='SparsityReportHook'),
]
randomness = dict(seed=0)
