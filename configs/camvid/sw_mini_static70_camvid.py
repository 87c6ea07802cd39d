# sw_mini_camvid.py with 70% of its small filters pruned before the first iteration, by SNIP. Which
# ones does not change any more.
_base_ = ['sw_mini_camvid.py']

custom_hooks = [
    dict(type='DynamicSparsityHook', start='snip', sparsity=0.7, end_iter=0),
    dict(type='SparsityReportHook'),
]
