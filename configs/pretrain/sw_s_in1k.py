# SW-S v2 on ImageNet-1k, sparse: the recipe of SW-T.
# The authors publish no result of it.
_base_ = ['sw_t_in1k.py']

model = dict(
    backbone=dict(arch='small'),
    neck=dict(in_channels=768),
    head=dict(in_channels=768),
)
