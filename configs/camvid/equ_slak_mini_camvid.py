# The same network as slak_mini_camvid.py: small convolutions and shifts compute its large kernels
# ("equ-SLaK"). Checkpoints of either config load into the other.
_base_ = ['slak_mini_camvid.py']

model = dict(backbone=dict(shift_wise=True))
