# Detection: tools/train.py and tools/test.py use mmdetection for its scope.
_base_ = ['mmdet::_base_/default_runtime.py']

custom_imports = dict(imports=['mmsw'], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3, save_best='coco/bbox_mAP'))
# Reports density per stage at the start and at every save, and stops a run that lost a zero.
custom_hooks = [dict(type='SparsityReportHook')]
