# RetinaNet (one stage), SW-T v2, COCO: 12 epochs at one scale.
# A recipe of this project, never trained to the end: the authors publish none for it.
#
#   tools/dist_train.sh configs/retinanet_sw_t_1x_coco.py 8 --amp
#   python tools/train.py configs/retinanet_sw_t_1x_coco.py --amp \
#       --cfg-options train_dataloader.batch_size=16
#
# The first is for eight GPUs, the second for one. docs/recipes.md has a table for other
# numbers of GPUs.
_base_ = [
    '_base_/models/retinanet_shiftwise.py',
    '_base_/datasets/coco_boxes.py',
    '_base_/schedules/adamw_1x.py',
    '_base_/detection_runtime.py',
]

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='checkpoints/sw_t_v2_imagenet1k.pth'))
)
