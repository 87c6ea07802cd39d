# Cascade Mask R-CNN, SW-T v2, COCO: the 3x recipe published with the
# network.
#
#   tools/dist_train.sh configs/cascade_mask_rcnn_sw_t_coco.py 8 --amp        # eight GPUs
#   python tools/train.py configs/cascade_mask_rcnn_sw_t_coco.py --amp \
#       --cfg-options train_dataloader.batch_size=16                          # one GPU
#
# The learning rate is for 16 images per step: eight GPUs with two images each. docs/recipes.md has
# a table for other numbers of GPUs.
#
# Download the ImageNet checkpoint of the authors by hand (docs/recipes.md says where). Put it at
# the path below, or name it with --pretrained PATH. --from-scratch trains without one. Put COCO in
# data/coco. If it is somewhere else, pass --data-root PATH.
_base_ = [
    '_base_/models/cascade_mask_rcnn_shiftwise.py',
    '_base_/datasets/coco_multi_scale.py',
    '_base_/schedules/adamw_3x.py',
    '_base_/detection_runtime.py',
]

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='checkpoints/sw_t_v2_imagenet1k.pth'))
)
