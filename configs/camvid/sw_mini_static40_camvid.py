# sw_mini_camvid.py with 40% of its small filters pruned before the first iteration, by SNIP. Which
# ones does not change any more.
_base_ = ['sw_mini_camvid.py']

custom_hooks = [
    dict(type='DynamicSparsityHook', start='snip', sparsity=0.4, end_iter=0),
    dict(type='SparsityReportHook'),
]
