# Width factor 1.2: every stage has 1.2 times the channels.
_base_ = '../_base_/ablation_scenes.py'

width_factor = 1.2
model = dict(
    backbone=dict(width_factor=width_factor),
    decode_head=dict(
        in_channels=[int(dim * width_factor) for dim in _base_.mini_backbone.arch.dims]
    ),
)
