# Recipe: a learning rate that falls from the head to the first layers, which are the most general
# ones. For fine-tuning from a checkpoint; 0.8 to 0.9 per layer are usual:
#
#   python tools/train.py configs/recipes/layer_wise_rates.py --data-root data/mine \
#       --pretrained work_dirs/demo/pretrained_sparse.pth
_base_ = ['../own_segmentation_sw_mini.py']

optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.85))
