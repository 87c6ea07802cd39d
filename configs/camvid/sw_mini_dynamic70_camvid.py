# sw_mini_camvid.py with 70% of its small filters pruned from the first iteration on. Every 50
# iterations some of the weakest are exchanged, until three quarters of the training.
_base_ = ['sw_mini_camvid.py']

custom_hooks = [
    dict(
        type='DynamicSparsityHook',
        start='snip',
        sparsity=0.7,
        interval=50,
        align_interval=5,
        end_iter=18000,
    ),
    dict(type='SparsityReportHook'),
]
