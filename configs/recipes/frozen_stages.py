# Recipe: keep the first stages of the backbone as they were pretrained, and train the others. For
# few images that look like those of the pretraining; it also takes less memory and time. It needs a
# checkpoint to start from:
#
#   python tools/train.py configs/recipes/frozen_stages.py --data-root data/mine \
#       --pretrained work_dirs/demo/pretrained_sparse.pth
_base_ = ['../own_segmentation_sw_mini.py']

model = dict(backbone=dict(frozen_stages=2))  # the stem and two of the four stages
