# Recipe: a detector for some categories of an annotation file. The others are background, and so
# are images that hold nothing else. With one name it is a detector of one class. Names are in the
# order of the categories in the file:
#
#   python tools/train.py configs/recipes/some_classes.py --data-root data/mine
_base_ = ['../own_retinanet_sw_mini.py']

own_data = dict(classes=('cell',))
