# SW-S v1 on ImageNet-1k, sparse: the recipe of SW-T v2.
# The authors publish no checkpoint of it. Eight GPUs with 128 images each:
#
#   tools/dist_train.sh configs/pretrain/sw_v1_s_in1k.py 8 --amp \
#       --cfg-options optim_wrapper.accumulative_counts=4 custom_hooks.0.interval=400
_base_ = ['sw_v1_t_in1k.py']

model = dict(backbone=dict(arch='small'))
