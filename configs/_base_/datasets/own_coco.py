# Your own data for detection: images, and annotation files in the COCO format (JSON). The tools of
# mmsw fill everything else in from own_data: loaders, pipelines, evaluators, number of classes of
# every head, length of training. Change it in a config of your own, or by options:
#
#   _base_ = 'mmsw::own_mask_rcnn_sw_t.py'
#   own_data = dict(data_root='data/mine', masks=False)
#
#   python tools/train.py configs/own_mask_rcnn_sw_t.py --data-root data/mine \
#       --cfg-options own_data.masks=False
#
# Folders and files are below data_root. None in the rest of this file means: own_data decides.
own_data = dict(
    task='detection',
    data_root='data/own',
    train=dict(images='train', annotations='annotations/train.json'),
    val=dict(
        images='val', annotations='annotations/val.json'
    ),  # 0.2 holds out a fifth of the training
    # test=dict(images='test', annotations='annotations/test.json'),  # else the validation images
    classes=None,  # names, or a text file with a name per line; None: all of the training file
    palette=None,  # one RGB triple per class; None: colours are drawn
    masks=True,  # False: boxes only
    image_size=(640, 640),  # height and width that images are fitted into
    scale_range=(0.75, 1.5),  # images are enlarged at random in training, by that much
    flip=True,  # False where left and right are told apart, as in text
    batch_size=4,  # images per step and process
    max_iters=None,  # iterations of training; None: as many as `passes` over the images take
    passes=50,
    iterations=(2000, 90000),  # the fewest and the most
    learning_rate=1e-4,  # for 16 images per step; other numbers: times the root of number / 16
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=None),
    dict(type='RandomResize', scale=None, ratio_range=None, keep_ratio=True),
    dict(type='RandomCrop', crop_size=None, allow_negative_crop=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=None, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=None),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]

train_dataloader = dict(
    batch_size=None,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='OwnData',
        filter_cfg=dict(filter_empty_gt=False),  # images without objects teach as well
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='OwnData', pipeline=test_pipeline),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='CocoMetric', ann_file=None, metric=None)
test_evaluator = val_evaluator
