# SW-S v1 on ImageNet-1k, sparse: the recipe of SW-T v2.
# The authors publish no checkpoint of it.
_base_ = ['sw_v1_t_in1k.py']

model = dict(backbone=dict(arch='small'))
