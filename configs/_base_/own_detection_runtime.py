# Schedule and runtime of detection on own data: iterations instead of epochs.
_base_ = ['schedules/own_data.py', 'detection_runtime.py']

default_hooks = dict(
    logger=dict(interval=None, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=None, max_keep_ckpts=2),
)
log_processor = dict(by_epoch=False)
