# Cascade Mask R-CNN, SW-T of the second generation, COCO: the 3x recipe published with the network.
#
#   tools/dist_train.sh configs/cascade_mask_rcnn_sw_t_coco.py 8 --amp        # eight GPUs
#   python tools/train.py configs/cascade_mask_rcnn_sw_t_coco.py              # one GPU, or the CPU
#
# The ImageNet checkpoint that the authors published is downloaded by hand (their README links it).
# Put it at the path below or name it with --pretrained PATH; --from-scratch trains without one.
# COCO lies in data/coco, or anywhere: --data-root PATH.
_base_ = [
    '_base_/models/cascade_mask_rcnn_shiftwise.py',
    '_base_/datasets/coco_multi_scale.py',
    '_base_/schedules/adamw_3x.py',
    '_base_/detection_runtime.py',
]

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='checkpoints/sw_t_v2_imagenet1k.pth'))
)
