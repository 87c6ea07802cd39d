# The same network as upernet_slak_mini_scenes.py: small convolutions and shifts compute its large
# kernels ("equ-SLaK"). Checkpoints of either config load into the other.
_base_ = ['upernet_slak_mini_scenes.py']

model = dict(backbone=dict(shift_wise=True))
