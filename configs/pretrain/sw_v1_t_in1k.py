# SW-T v1 on ImageNet-1k, sparse: the recipe of v2.
# The authors publish no checkpoint of it.
_base_ = ['sw_t_in1k.py']

model = dict(
    backbone=dict(version='v1'),
    neck=dict(in_channels=768),
    head=dict(in_channels=768),
)
