# "p-SW": one path; the small convolution is padded by N - 1, so it sees what lies at the border.
_base_ = '../_base_/ablation_scenes.py'

model = dict(backbone=dict(num_paths=1, padding='full'))
