# Two paths: two small kernels in place of each, whose outputs are summed.
_base_ = '../_base_/ablation_scenes.py'

model = dict(backbone=dict(num_paths=2))
