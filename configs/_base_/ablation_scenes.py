# What the ablations on the demo scenes share: the demonstration's segmentor, from random weights.
# The published checkpoints fit none of them in every option, so all start alike.
_base_ = '../demo/upernet_sw_mini_scenes.py'

custom_imports = dict(imports=['mmsw', 'mmsw.demo'], allow_failed_imports=False)

model = dict(
    backbone=dict(init_cfg=dict(_delete_=True, type='DemoNarrowInit')),
)
custom_hooks = [dict(type='SparsityReportHook')]
