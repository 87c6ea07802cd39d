# The demonstration's UPerNet on a ResNet-18 of 18 channels instead of 64, for comparisons of equal
# cost: it has the multiply-adds of the small shift-wise network. `tools/get_flops.py` counts both.
_base_ = ['upernet_r18_scenes.py']

model = dict(
    backbone=dict(stem_channels=18, base_channels=18),
    decode_head=dict(in_channels=[18, 36, 72, 144]),
)
