# UPerNet, SW-T of the second generation, ADE20K: the recipe published with the network.
#
#   python tools/train.py configs/upernet_sw_t_ade20k.py                      # one GPU, or the CPU
#   tools/dist_train.sh configs/upernet_sw_t_ade20k.py 4 --amp                # four GPUs
#
# The ImageNet checkpoint that the authors published is downloaded by hand (their README links it).
# Put it at the path below or name it with --pretrained PATH; --from-scratch trains without one.
# An extracted data set anywhere: --data-root PATH.
_base_ = [
    '_base_/models/upernet_shiftwise.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/adamw_160k.py',
    '_base_/segmentation_runtime.py',
]

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='checkpoints/sw_t_v2_imagenet1k.pth'))
)
