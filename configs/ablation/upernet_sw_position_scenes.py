# Each shifted read brings a constant that is not trained.
_base_ = '../_base_/ablation_scenes.py'

model = dict(backbone=dict(position=True))
