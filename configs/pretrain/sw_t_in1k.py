# SW-T v2 on ImageNet-1k, sparse: the recipe published with the network.
#
#   tools/dist_train.sh configs/pretrain/sw_t_in1k.py 8 --amp \
#       --cfg-options optim_wrapper.accumulative_counts=4 custom_hooks.0.interval=400
#
# The learning rate is for 4,096 images per step: eight GPUs with 128 images each, four times. The
# exchange of filters counts iterations, so its interval is four times as long. docs/recipes.md has
# a table for other numbers of GPUs.
#
# Needs mmpretrain, in an environment of its own: docs/pretraining.md says how to make it. Put
# ImageNet in data/imagenet, or pass --data-root PATH. The checkpoint of this run loads into the
# configs for ADE20K and COCO: --pretrained PATH.
_base_ = [
    '../_base_/models/shiftwise_classifier.py',
    '../_base_/datasets/imagenet_in1k.py',
    '../_base_/schedules/adamw_300e_in1k.py',
    '../_base_/pretrain_runtime.py',
]
