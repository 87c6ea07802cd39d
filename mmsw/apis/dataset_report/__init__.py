"""What the data of a config look like, and what in them would break or mislead a training."""

from .report import DatasetReport, check_outputs, report_dataset, write_report
from .survey import SAMPLE, Extent

__all__ = [
    'SAMPLE',
    'DatasetReport',
    'Extent',
    'check_outputs',
    'report_dataset',
    'write_report',
]
