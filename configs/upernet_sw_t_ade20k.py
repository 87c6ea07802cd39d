# UPerNet, SW-T v2, ADE20K: the recipe published with the network.
#
#   tools/dist_train.sh configs/upernet_sw_t_ade20k.py 4 --amp                # four GPUs
#   python tools/train.py configs/upernet_sw_t_ade20k.py --amp \
#       --cfg-options train_dataloader.batch_size=16                          # one GPU
#
# The learning rate is for 16 images per step: four GPUs with four images each. docs/recipes.md has
# a table for other numbers of GPUs.
#
# Download the ImageNet checkpoint of the authors by hand (docs/recipes.md says where). Put it at
# the path below, or name it with --pretrained PATH. --from-scratch trains without one. If the data
# set is somewhere else, pass --data-root PATH.
_base_ = [
    '_base_/models/upernet_shiftwise.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/adamw_160k.py',
    '_base_/segmentation_runtime.py',
]

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='checkpoints/sw_t_v2_imagenet1k.pth'))
)
