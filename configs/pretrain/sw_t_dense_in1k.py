# SW-T v2 on ImageNet-1k without pruning: a start for the configs that make a
# network sparse while they fine-tune it, and the control of the sparse recipe. Eight GPUs with
# 128 images each:
#
#   tools/dist_train.sh configs/pretrain/sw_t_dense_in1k.py 8 --amp \
#       --cfg-options optim_wrapper.accumulative_counts=4
_base_ = ['sw_t_in1k.py']

custom_hooks = [dict(type='SparsityReportHook')]
