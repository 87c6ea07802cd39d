# SLaK-T for the heads of both tasks to share.
slak_tiny = dict(
    type='SLaK',
    arch='tiny',
    drop_path_rate=0.4,
    norm_cfg=dict(type='SyncBN', requires_grad=True),
    init_cfg=dict(type='Pretrained', checkpoint='checkpoints/slak_t_imagenet1k.pth'),
)
