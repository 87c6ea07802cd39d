# Schedule and runtime of the demonstration: iterations instead of epochs, a higher learning rate.
_base_ = ['schedules/adamw_1x.py', 'detection_runtime.py']

max_iters = 600
val_interval = 200
optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    paramwise_cfg=dict(decay_rate=1.0),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=50, end=max_iters),
]
train_cfg = dict(
    _delete_=True, type='IterBasedTrainLoop', max_iters=max_iters, val_interval=val_interval
)
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(
    logger=dict(interval=20, log_metric_by_epoch=False),
    checkpoint=dict(interval=val_interval, by_epoch=False, max_keep_ckpts=1, save_best=None),
)
log_processor = dict(by_epoch=False, window_size=20)
custom_hooks = [dict(type='SparsityReportHook', require_sparse=True)]
randomness = dict(seed=0)
