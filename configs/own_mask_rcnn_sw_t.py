# Mask R-CNN, SW-T v2, on your own images with a COCO annotation file. A config of your own:
#
#   _base_ = 'mmsw::own_mask_rcnn_sw_t.py'
#   own_data = dict(
#       data_root='data/mine',
#       train=dict(images='images', annotations='train.json'),
#       val=dict(images='images', annotations='val.json'),
#   )
#
# Then: python tools/train.py mine.py. Or no file at all:
#
#   python tools/train.py configs/own_mask_rcnn_sw_t.py --data-root data/mine --cfg-options \
#       own_data.train.images=images own_data.train.annotations=train.json \
#       own_data.val.images=images own_data.val.annotations=val.json
#
# Boxes without masks: own_data.masks=False. All keys: _base_/datasets/own_coco.py.
# The ImageNet checkpoint: see upernet_sw_t_ade20k.py. --from-scratch trains without one.
_base_ = [
    '_base_/models/mask_rcnn_shiftwise.py',
    '_base_/datasets/own_coco.py',
    '_base_/own_detection_runtime.py',
]

model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='checkpoints/sw_t_v2_imagenet1k.pth'))
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.8, num_layers=12))  # as on COCO
