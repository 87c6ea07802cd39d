"""Converting what annotation programs export into what the configs for own data read.

One file per format reads it into the objects of ``annotated``. Two files write: ``coco_file`` and
``label_map_files``. ``conversion`` brings them together.
"""

from .conversion import TARGETS, Converted, Request, convert
from .summary import own_data_lines, summary_lines

__all__ = ['TARGETS', 'Converted', 'Request', 'convert', 'own_data_lines', 'summary_lines']
