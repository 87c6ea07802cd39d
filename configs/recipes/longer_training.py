# Recipe: train for longer, look more often, and stop when it gets no better. The learning rate
# falls to zero with the end of the run, so a long run that is stopped is not a short one:
#
#   python tools/train.py configs/recipes/longer_training.py --data-root data/mine
_base_ = ['../own_segmentation_sw_mini.py']

own_data = dict(passes=100)  # over the training images; or max_iters=20000
train_cfg = dict(val_interval=100)
default_hooks = dict(checkpoint=dict(interval=100))  # keeps the best one and the last two
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='EarlyStoppingHook', monitor='mIoU', rule='greater', min_delta=0.1, patience=10),
]
