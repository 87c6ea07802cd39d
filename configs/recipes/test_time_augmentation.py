# Recipe: test-time augmentation. Each image is predicted at three sizes, each also mirrored, and
# the scores are averaged. It takes more than six times as long, and needs no new training:
#
#   python tools/test.py configs/recipes/test_time_augmentation.py CHECKPOINT.pth \
#       --data-root data/mine
#
# `--tta` does the same with any segmentation config. The sizes: tta_pipeline.1.transforms.0.
_base_ = ['../own_segmentation_sw_mini.py']

use_tta = True
