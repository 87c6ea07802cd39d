# The small backbone of the demonstration, for the heads of both tasks to share.
mini_backbone = dict(
    type='ShiftWiseNet',
    arch=dict(depths=[2, 2, 2, 1], dims=[24, 48, 96, 160]),
    version='v2',
    # About three quarters of each stage's map of a 160-pixel scene: 40, 20, 10 and 5 positions.
    big_kernels=(31, 15, 7, 5),
    layer_scale_init_value=1.0,
    norm_cfg=dict(type='SyncBN', requires_grad=True),
    init_cfg=dict(type='Pretrained', checkpoint='work_dirs/demo/pretrained_sparse.pth'),
)
