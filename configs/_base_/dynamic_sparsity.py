# Sparse training as published: SNIP chooses 70% of the small filters before the first iteration;
# every 100 iterations some of the weakest are exchanged for others. It runs to the end of training.
# With gradient accumulation multiply the interval. Settings: docs/sparse_training.md.
dynamic_sparsity = dict(
    type='DynamicSparsityHook',
    start='snip',
    sparsity=0.3,
    interval=100,
    prune_rate=0.3,
    end_rate=0.005,
    grow='random',
    granularity='filter',
    align_interval=131,
)
