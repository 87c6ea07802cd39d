# UPerNet, SLaK-T, ADE20K: the large-kernel network that SW-T is measured against, by the recipe of
# SW-T.
#
# model.backbone.shift_wise=True computes its large kernels with small convolutions and shifts
# ("equ-SLaK-T"): the same checkpoints, the same results to rounding. docs/slak.md has both.
#
# Download the ImageNet checkpoint of the authors of SLaK by hand, and put it at
# checkpoints/slak_t_imagenet1k.pth or name it with --pretrained PATH. --from-scratch trains without
# one.
_base_ = ['upernet_sw_t_ade20k.py', '_base_/models/slak_tiny.py']

model = dict(
    backbone=dict(_delete_=True, **_base_.slak_tiny),
    decode_head=dict(in_channels=[124, 249, 499, 998]),
    auxiliary_head=dict(in_channels=499),
)
