"""Train the segmentor, detector or classifier of a config, on a CPU, one GPU or several GPUs.

To train with several processes, use tools/dist_train.sh.
"""

import argparse
from collections.abc import Sequence

import _clone  # before mmsw

_clone.wait_passively()
with _clone.toolboxes_needed():
    from mmsw.apis import build_runner
    from mmsw.apis.cli import (
        add_training_arguments,
        leave,
        run_reporting_errors,
        set_local_rank,
        training_arguments,
    )


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    parser.add_argument(
        'config', metavar='CONFIG', help='config file, e.g. configs/upernet_sw_t_ade20k.py'
    )
    add_training_arguments(parser)
    return parser.parse_args(argv)


_EPILOG = """\
Examples:
  python tools/train.py configs/demo/upernet_sw_mini_scenes.py
  python tools/train.py configs/upernet_sw_t_ade20k.py --amp --cfg-options batch_size=16
  python tools/train.py configs/upernet_sw_t_ade20k.py --amp --cfg-options batch_size=16 --resume
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    set_local_rank(args)
    return run_reporting_errors(
        lambda: build_runner(args.config, **training_arguments(args)).train(),
        options=args.cfg_options,
    )


if __name__ == '__main__':
    leave(main())
