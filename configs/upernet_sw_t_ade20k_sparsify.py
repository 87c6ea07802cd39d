# UPerNet, SW-T v2, ADE20K, from a dense start that becomes sparse on the
# way. A recipe of this project: the authors publish sparse pretraining only.
#
# Nobody has published the dense ImageNet checkpoint: train it with
# configs/pretrain/sw_t_dense_in1k.py and name it with --pretrained PATH.
_base_ = ['upernet_sw_t_ade20k.py', '_base_/dynamic_sparsity.py']

model = dict(backbone=dict(init_cfg=dict(checkpoint='checkpoints/sw_t_v2_dense_imagenet1k.pth')))
# 300 exchanges in the first three quarters of training, rarer than in pretraining: 16 images at a
# low learning rate teach a new filter less. In the last of them the paths share one mask again.
custom_hooks = [
    dict(_base_.dynamic_sparsity, interval=400, end_iter=120001, align_interval=50),
    dict(type='SparsityReportHook'),
]
