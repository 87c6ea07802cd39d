# A segmentor of 0.69 million parameters for CamVid, road scenes of 480 x 360 pixels: the small
# shift-wise network of the demonstration and the head of SegFormer, from random values. Where to
# get the images: docs/real_data.md. What was measured: docs/real_images.md.
#
#   python tools/train.py configs/camvid/sw_mini_camvid.py
#   python tools/test.py configs/camvid/sw_mini_camvid.py \
#       work_dirs/sw_mini_camvid/iter_24000.pth --show-dir work_dirs/camvid
#
# The other files of this folder differ from it in the backbone, or in what is pruned.
_base_ = ['../own_segmentation_sw_mini.py']

own_data = dict(
    data_root='data/camvid',
    train=dict(images='train', labels='trainannot'),
    val=dict(images='val', labels='valannot'),
    test=dict(images='test', labels='testannot'),
    classes=(
        'sky',
        'building',
        'pole',
        'road',
        'pavement',
        'tree',
        'sign',
        'fence',
        'car',
        'pedestrian',
        'bicyclist',
    ),
    palette=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
    ignore=(11, 255),
    image_suffix=('.png', '.jpg'),
    scale_range=(0.5, 1.5),
    crop_size=(160, 224),
    batch_size=4,
    max_iters=24000,
    learning_rate=6e-3,
)
custom_imports = dict(imports=['mmsw', 'mmsw.demo'], allow_failed_imports=False)
# 1 / ln(1.02 + share of the pixels), as of ENet (arXiv 1606.02147, section 5.2), so scaled that
# the mean over the training pixels is 1. Signs, poles and people are 4% of them.
# mmsegmentation's mean over weighted pixels stumbles over ignored ones, so the loss is their sum
# over the number of pixels of a batch.
class_weight = [0.80, 0.61, 4.79, 0.48, 2.21, 1.25, 4.50, 4.57, 1.83, 5.43, 6.27]
model = dict(
    backbone=dict(
        init_cfg=dict(_delete_=True, type='DemoNarrowInit')  # learns within few iterations
    ),
    decode_head=dict(
        _delete_=True,
        type='SegformerHead',
        in_channels=_base_.mini_backbone.arch.dims,
        in_index=[0, 1, 2, 3],
        channels=64,
        dropout_ratio=0.0,
        num_classes=11,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False,
        init_cfg=dict(type='Normal', std=0.1, override=dict(name='conv_seg')),
        loss_decode=dict(
            type='CrossEntropyLoss',
            class_weight=class_weight,
            reduction='sum',
            loss_weight=1 / (4 * 160 * 224),
        ),
    ),
)
randomness = dict(seed=0)
