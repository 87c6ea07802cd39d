# A small RetinaNet for BCCD, blood cells under the microscope, at half their 640 x 480 pixels: the
# small shift-wise network of the demonstration, from random values. Where to get the images:
# docs/real_data.md.
#
#   python tools/train.py configs/bccd/retinanet_sw_mini_bccd.py
#   python tools/test.py configs/bccd/retinanet_sw_mini_bccd.py \
#       work_dirs/retinanet_sw_mini_bccd/iter_600.pth --show-dir work_dirs/bccd
_base_ = ['../own_retinanet_sw_mini.py']

own_data = dict(
    data_root='data/bccd',
    train=dict(images='images', annotations='train.json'),
    val=dict(images='images', annotations='val.json'),
    test=dict(images='images', annotations='test.json'),
    classes=('RBC', 'WBC', 'Platelets'),
    image_size=(240, 320),
    scale_range=(0.8, 1.25),
    batch_size=4,
    max_iters=600,
    learning_rate=6e-3,
)
custom_imports = dict(imports=['mmsw', 'mmsw.demo'], allow_failed_imports=False)
model = dict(
    # It learns within few iterations.
    backbone=dict(init_cfg=dict(_delete_=True, type='DemoNarrowInit')),
    neck=dict(num_outs=3),
    bbox_head=dict(
        # Boxes are about square: red cells of 51 pixels in the median, white ones of 94, platelets
        # of 19. Anchors have 19, 27, 38, 54, 77 and 109.
        anchor_generator=dict(
            octave_base_scale=2.4, scales_per_octave=2, ratios=[1.0], strides=[8, 16, 32]
        ),
        # A short schedule has no time to grow the last layers from a deviation of 0.01.
        init_cfg=dict(
            type='Normal',
            layer='Conv2d',
            std=0.05,
            override=dict(type='Normal', name='retina_cls', std=0.05, bias_prob=0.02),
        ),
    ),
)
randomness = dict(seed=0)
