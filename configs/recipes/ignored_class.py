# Recipe: a class of a segmentation that is neither learned nor scored. Its pixels have no truth, so
# they count for nothing; the network calls them by the name of some other class. Here it is the
# first one, whose label value is 0:
#
#   python tools/train.py configs/recipes/ignored_class.py --data-root data/mine
_base_ = ['../own_segmentation_sw_mini.py']

own_data = dict(classes=('background', 'road', 'car'), ignore=(0, 255))
# Its place among the classes stays, so that the other label values keep their names. It has no
# score in the table, and the mean is that of the others. A void value behind the last class (11 of
# CamVid) is given in the same way, and needs no name: ignore=(11, 255).
