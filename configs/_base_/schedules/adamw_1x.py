# 12 epochs of COCO: the 3x schedule cut to a third.
_base_ = ['adamw_3x.py']

max_epochs = 12
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', milestones=[8, 11], gamma=0.1, begin=0, end=max_epochs),
]
train_cfg = dict(max_epochs=max_epochs)
