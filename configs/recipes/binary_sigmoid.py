# Recipe: two classes by one channel and a sigmoid, instead of two channels and a softmax. A pixel
# is an object where the sigmoid is above the threshold, which tunes precision against recall:
#
#   python tools/train.py configs/recipes/binary_sigmoid.py --data-root data/mine
#   python tools/test.py configs/recipes/binary_sigmoid.py CHECKPOINT.pth --data-root data/mine \
#       --cfg-options model.decode_head.threshold=0.3
#
# Label maps hold 0 and 1. For masks of 0 and 255: own_data.binary_masks=True.
_base_ = ['../own_segmentation_sw_mini.py']

own_data = dict(classes=('background', 'object'))
model = dict(
    decode_head=dict(out_channels=1, threshold=0.5, loss_decode=dict(use_sigmoid=True)),
)
