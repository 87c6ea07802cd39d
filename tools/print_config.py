"""Print the whole config of a training run, with every option applied as tools/train.py applies it.

The printed text is a config that tools/train.py and the toolboxes can read. Nothing is trained, and
no GPU is needed. A config for own data needs these data: their number decides the schedule.
"""

import argparse
from collections.abc import Sequence

import _clone  # before mmsw

with _clone.toolboxes_needed():
    from mmsw.apis.cli import add_training_arguments, run_reporting_errors, training_arguments
    from mmsw.apis.config_text import print_config


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG
    )
    parser.add_argument(
        'config', metavar='CONFIG', help='config file, e.g. configs/upernet_sw_t_ade20k.py'
    )
    add_training_arguments(parser)
    parser.add_argument(
        '--out',
        metavar='FILE',
        help='write the config to this .py, .json or .yaml file, which must not exist yet '
        '(default: print it)',
    )
    return parser.parse_args(argv)


_EPILOG = """\
Examples:
  python tools/print_config.py configs/upernet_sw_t_ade20k.py --cfg-options max_iters=20000
  python tools/print_config.py configs/upernet_sw_t_ade20k.py --out work_dirs/my_upernet.py
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit code."""
    args = parse_args(argv)
    return run_reporting_errors(
        lambda: print_config(args.config, args.out, **training_arguments(args)),
        options=args.cfg_options,
    )


if __name__ == '__main__':
    raise SystemExit(main())
