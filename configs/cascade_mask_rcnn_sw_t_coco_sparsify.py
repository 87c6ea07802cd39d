# Cascade Mask R-CNN, SW-T v2, COCO, from a dense start that becomes sparse
# on the way. A recipe of this project: the authors publish sparse pretraining only.
#
# Nobody has published the dense ImageNet checkpoint: train it with
# configs/pretrain/sw_t_dense_in1k.py and name it with --pretrained PATH.
_base_ = ['cascade_mask_rcnn_sw_t_coco.py', '_base_/dynamic_sparsity.py']

model = dict(backbone=dict(init_cfg=dict(checkpoint='checkpoints/sw_t_v2_dense_imagenet1k.pth')))
# 36 epochs of 16 images per step are 264k iterations. 450 exchanges in the first 25 epochs, before
# the learning rate first falls (epoch 27). In the last of them the paths share one mask again.
custom_hooks = [
    dict(_base_.dynamic_sparsity, interval=400, end_iter=180001, align_interval=50),
    dict(type='SparsityReportHook'),
]
