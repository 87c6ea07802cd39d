# Schedule and runtime of detection on own data: iterations instead of epochs.
_base_ = ['schedules/own_data.py', 'detection_runtime.py']

# The intervals that are left out follow from own_data.
default_hooks = dict(
    logger=dict(_delete_=True, type='LoggerHook', log_metric_by_epoch=False),
    checkpoint=dict(
        _delete_=True,
        type='CheckpointHook',
        by_epoch=False,
        max_keep_ckpts=2,
        save_best='coco/bbox_mAP',
    ),
)
log_processor = dict(by_epoch=False)
