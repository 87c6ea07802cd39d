# 300 epochs of ImageNet-1k at 4096 images per update, the first five of them warm-up: 32
# processes with train_dataloader.batch_size=128. Fewer processes accumulate gradients to the same
# total: eight with optim_wrapper.accumulative_counts=4 and custom_hooks.0.interval=400, because
# the exchange of filters counts iterations. docs/recipes.md has a table.
max_epochs = 300
warm_up = 5
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=4e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    # no decay of norms, biases, layer scales and whatever else is a vector
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0),
    accumulative_counts=1,
)
auto_scale_lr = dict(enable=False, base_batch_size=4096)

param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        by_epoch=True,
        begin=0,
        end=warm_up,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs - warm_up,
        eta_min=1e-6,
        by_epoch=True,
        begin=warm_up,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
