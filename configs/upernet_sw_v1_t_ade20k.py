# UPerNet, SW-T v1, ADE20K: the recipe of v2.
# Nobody has published an ImageNet checkpoint of it: train one, or pass --from-scratch.
_base_ = ['upernet_sw_t_ade20k.py']

model = dict(
    backbone=dict(
        version='v1',
        init_cfg=dict(checkpoint='checkpoints/sw_t_v1_imagenet1k.pth'),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
