# SLaK of the widths, depths and kernels of the small shift-wise network, to compare with
# sw_mini_camvid.py: large kernels of M x 5 and 5 x M instead of small ones that are shifted.
_base_ = ['sw_mini_camvid.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='SLaK',
        arch=dict(depths=[2, 2, 2, 1], dims=[24, 48, 96, 160]),
        big_kernels=(31, 15, 7, 5),
        width_factor=1.0,
        layer_scale_init_value=1.0,
        init_cfg=dict(type='DemoNarrowInit'),
        norm_cfg=dict(type='SyncBN', requires_grad=True),
    ),
)
