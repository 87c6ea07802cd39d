# COCO 2017 instances at one scale: the short side at 800 pixels, the long side at most 1333.
# Below data_root: train2017/, val2017/ and annotations/instances_{train,val}2017.json.
# If it is somewhere else: tools/train.py and tools/test.py --data-root PATH.
_base_ = ['mmdet::_base_/datasets/coco_instance.py']

# mmdet's pipelines, with loaders that name a file that is missing or damaged.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(num_workers=4, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
