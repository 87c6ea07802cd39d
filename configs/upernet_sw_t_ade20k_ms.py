# Multi-scale and flip test of upernet_sw_t_ade20k.py: six scales from 0.5 to 1.75, each also
# mirrored, every image seen as a whole. `tools/test.py` with this file does it without --tta.
_base_ = ['upernet_sw_t_ade20k.py']

use_tta = True
model = dict(test_cfg=dict(_delete_=True, mode='whole'))
