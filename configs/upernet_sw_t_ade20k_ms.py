# Multi-scale and flip test of upernet_sw_t_ade20k.py: six scales from 0.5 to 1.75, each also
# mirrored. `tools/test.py` with this file does it without --tta. Every image is seen as a whole;
# --tta with upernet_sw_t_ade20k.py slides a window over it instead.
_base_ = ['upernet_sw_t_ade20k.py']

use_tta = True
model = dict(test_cfg=dict(_delete_=True, mode='whole'))
