# Recipe: weights of classes in the loss, for classes that are rare. One weight per class, in the
# order of own_data.classes. `python tools/check_dataset.py CONFIG` counts the pixels and names
# weights that fit:
#
#   python tools/train.py configs/recipes/class_weights.py --data-root data/mine
_base_ = ['../own_segmentation_sw_mini.py']

own_data = dict(classes=('background', 'object'))
# reduction='none': the mean that mmsegmentation takes itself fails with weights where a pixel has
# no class, as in the padding of a crop. So the mean over all pixels is taken afterwards.
weighted = dict(class_weight=[0.5, 2.0], reduction='none')
model = dict(decode_head=dict(loss_decode=weighted))
# An auxiliary head (own_segmentation_sw_t.py) takes them as well:
# model = dict(decode_head=..., auxiliary_head=dict(loss_decode=weighted))
