# Each branch learns how it weighs what it adds up.
_base_ = '../_base_/ablation_scenes.py'

model = dict(backbone=dict(branch_weights=True))
