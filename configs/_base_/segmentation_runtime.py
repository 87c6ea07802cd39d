# Segmentation: tools/train.py and tools/test.py use mmsegmentation for this scope.
default_scope = 'mmseg'
custom_imports = dict(imports=['mmsw'], allow_failed_imports=False)

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),  # without a GPU the tools take gloo
)
visualizer = dict(
    type='SegLocalVisualizer',
    vis_backends=[dict(type='LocalVisBackend')],
    name='visualizer',
)
log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False

# Reports density per stage at the start and at every save, and stops a run that lost a zero.
custom_hooks = [dict(type='SparsityReportHook')]

tta_model = dict(type='SegTTAModel')
