# A small ConvNeXt, to compare with sw_mini_camvid.py at equal multiply-adds. The backbone is the
# one that tools/benchmark_model.py measures, so that no further package is needed.
_base_ = ['sw_mini_camvid.py']

dims = [28, 56, 112, 192]
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmsw.benchmarks.model.convnext.ConvNeXt',
        depths=[2, 2, 2, 1],
        dims=dims,
        layer_scale_init_value=1.0,
        init_cfg=dict(type='DemoNarrowInit'),
    ),
    decode_head=dict(in_channels=dims),
)
optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0, bias_decay_mult=0.0),
)
