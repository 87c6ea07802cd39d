# SW-T v2 on ImageNet-1k without pruning: a start for the configs that make a
# network sparse while they fine-tune it, and the control of the sparse recipe.
_base_ = ['sw_t_in1k.py']

custom_hooks = [dict(type='SparsityReportHook')]
