# 36 epochs of COCO at 16 images per step: eight processes with train_dataloader.batch_size=2.
# With another number of processes keep the total (one: batch_size=16). If it does not fit into
# memory, take fewer images and tools/train.py --auto-scale-lr, which is another recipe.
max_epochs = 36
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='LayerDepthDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        decay_rate=0.8,
        num_layers=12,  # the recipe's; SW-T v2 counts as 9 by itself
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
    ),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', milestones=[27, 33], gamma=0.1, begin=0, end=max_epochs),
]

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
