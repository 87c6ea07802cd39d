# SW-S v2 on ImageNet-1k, sparse: the recipe of SW-T.
# The authors publish no result of it. Eight GPUs with 128 images each:
#
#   tools/dist_train.sh configs/pretrain/sw_s_in1k.py 8 --amp \
#       --cfg-options optim_wrapper.accumulative_counts=4 custom_hooks.0.interval=400
_base_ = ['sw_t_in1k.py']

model = dict(
    backbone=dict(arch='small'),
    neck=dict(in_channels=768),
    head=dict(in_channels=768),
)
