# UPerNet, SW-T of the first generation, ADE20K: the recipe of the second.
# The authors publish no ImageNet checkpoint of it: bring your own, or train with --from-scratch.
_base_ = ['upernet_sw_t_ade20k.py']

model = dict(
    backbone=dict(
        version='v1',
        init_cfg=dict(checkpoint='checkpoints/sw_t_v1_imagenet1k.pth'),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
