# mmpretrain's image classifier on SW-T v2.
# As published: pool, normalise, classify. SyncBN becomes BN by itself where there is nothing to
# synchronise (one process, or no GPU).
num_classes = 1000
model = dict(
    _scope_='mmpretrain',  # also where another toolbox's config or mmengine.hub builds it
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor',
        num_classes=num_classes,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(
        type='ShiftWiseNet',
        arch='tiny',
        version='v2',
        big_kernels=(51, 49, 47, 13),
        ghost_ratio=0.23,
        num_paths=2,
        num_reps=4,
        drop_path_rate=0.2,
        layer_scale_init_value=1e-6,
        out_indices=(3,),
        output_norm=False,  # the neck normalises, after pooling
        norm_cfg=dict(type='SyncBN', requires_grad=True),
    ),
    neck=dict(type='PooledNorm', in_channels=640),
    head=dict(
        type='LinearClsHead',
        num_classes=num_classes,
        in_channels=640,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
