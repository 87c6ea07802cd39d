# UPerNet, SW-T v2, on your own images and label maps. A config of your own is five lines:
#
#   _base_ = 'mmsw::own_segmentation_sw_t.py'
#   own_data = dict(
#       data_root='data/mine',
#       classes=('background', 'road', 'car'),
#   )
#
# Then: python tools/train.py mine.py. Or no file at all:
#
#   python tools/train.py configs/own_segmentation_sw_t.py --data-root data/mine \
#       --cfg-options own_data.classes=background,road,car
#
# All keys of own_data, with what they mean: _base_/datasets/own_segmentation.py.
# The ImageNet checkpoint: see upernet_sw_t_ade20k.py. --from-scratch trains without one.
_base_ = [
    '_base_/models/upernet_shiftwise.py',
    '_base_/datasets/own_segmentation.py',
    '_base_/own_segmentation_runtime.py',
]

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='checkpoints/sw_t_v2_imagenet1k.pth'))
)
