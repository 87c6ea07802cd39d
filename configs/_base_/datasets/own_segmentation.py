# Your own data for segmentation: images, and one label map per image. The tools of mmsw fill
# everything else in from own_data: loaders, pipelines, evaluators, number of classes of every head,
# window of the test, length of training. Change it in a config of your own, or by options:
#
#   _base_ = 'mmsw::own_segmentation_sw_t.py'
#   own_data = dict(data_root='data/mine', classes=('background', 'road'))
#
#   python tools/train.py configs/own_segmentation_sw_t.py --data-root data/mine \
#       --cfg-options own_data.classes=background,road
#
# Folders and files are below data_root. Images may lie in folders of their own inside of `images`,
# if the label maps lie alike. None in the rest of this file means: own_data decides.
own_data = dict(
    task='segmentation',
    data_root='data/own',
    train=dict(images='images/train', labels='labels/train'),
    val=dict(images='images/val', labels='labels/val'),  # 0.2 holds out a fifth of the training
    # test=dict(images='images/test', labels='labels/test'),  # else the validation images
    classes=(
        'background',
        'object',
    ),  # in the order of the label values, or a file with a name per line
    palette=None,  # one RGB triple per class; None: colours are drawn
    image_suffix='.jpg',  # or several, ('.jpg', '.png')
    label_suffix='.png',
    ignore=(255,),  # label values that are no class
    binary_masks=False,  # True: masks are drawn with 0 and 255, which are the two classes
    reduce_zero_label=False,  # True: the first class has the label value 1, and 0 is ignored
    image_scale=None,  # (2048, 512): longest long and short side; None: images as they are
    scale_range=(0.5, 2.0),  # images are enlarged at random in training, by that much
    crop_size=(512, 512),  # height and width, in training and of the window of the test
    flip=True,  # False where left and right are told apart, as in text
    batch_size=4,  # images per step and process
    max_iters=None,  # iterations of training; None: as many as `passes` over the images take
    passes=100,
    iterations=(2000, 160000),  # the fewest and the most
    learning_rate=1e-4,  # for 16 images per step; other numbers: times the root of number / 16
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=None, ratio_range=None, keep_ratio=True),
    dict(type='RandomCrop', crop_size=None, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
# Annotations come after the resizing: scores are computed at the size of the original image.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=None, keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=None, scale_factor=factor, keep_ratio=True)
                for factor in (0.75, 1.0, 1.25)
            ],
            [
                dict(type='RandomFlip', prob=0.0, direction='horizontal'),
                dict(type='RandomFlip', prob=1.0, direction='horizontal'),
            ],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]

train_dataloader = dict(
    batch_size=None,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type='OwnData', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='OwnData', pipeline=test_pipeline),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
