# UPerNet on a small SLaK, from scratch: the large kernels that the demonstration's network
# replaces, at about its cost (docs/slak.md).
_base_ = ['upernet_sw_mini_scenes.py']

dims = [24, 48, 96, 160]

model = dict(
    backbone=dict(
        _delete_=True,
        type='SLaK',
        arch=dict(depths=[2, 2, 2, 1], dims=dims),
        big_kernels=(31, 15, 7, 5),
        width_factor=1.0,
        layer_scale_init_value=1.0,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
    ),
)
# Nothing is pruned yet.
custom_hooks = [dict(type='SparsityReportHook')]
