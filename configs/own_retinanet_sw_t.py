# RetinaNet (one stage, boxes only), SW-T v2, on your own images with a COCO annotation file. What
# to write or to type: see own_mask_rcnn_sw_t.py.
_base_ = [
    '_base_/models/retinanet_shiftwise.py',
    '_base_/datasets/own_coco.py',
    '_base_/own_detection_runtime.py',
]

own_data = dict(masks=False)
model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='checkpoints/sw_t_v2_imagenet1k.pth'))
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.8, num_layers=12))  # as on COCO
