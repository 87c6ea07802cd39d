# Training on own data: AdamW, a short warm-up, and a learning rate that falls to zero. What is None
# follows from own_data: mmsw/apis/own_data/schedule.py.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=None, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='LayerDepthDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        decay_rate=1.0,  # the same learning rate at every depth
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
    ),
    clip_grad=dict(max_norm=5.0),
)
auto_scale_lr = dict(enable=False, base_batch_size=None)

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=None),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=None, end=None),
]

train_cfg = dict(type='IterBasedTrainLoop', max_iters=None, val_interval=None)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
