# SW-S of the first generation on ImageNet-1k, sparse: the recipe of SW-T of the second.
# The authors publish no checkpoint of it.
_base_ = ['sw_v1_t_in1k.py']

model = dict(backbone=dict(arch='small'))
