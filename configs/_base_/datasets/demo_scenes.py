# What the demonstration scenes show, and in which colours (RGB) it is drawn.
digits = [f'digit {digit}' for digit in range(10)]
digit_palette = [
    (230, 25, 75),
    (60, 180, 75),
    (255, 225, 25),
    (0, 130, 200),
    (245, 130, 48),
    (145, 30, 180),
    (70, 240, 240),
    (240, 50, 230),
    (170, 110, 40),
    (250, 190, 212),
]
