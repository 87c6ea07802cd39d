# "p2-SW": one path; the small convolution is padded by N // 2, so its output ends with the map.
_base_ = './upernet_p_sw_scenes.py'

model = dict(backbone=dict(padding='same'))
