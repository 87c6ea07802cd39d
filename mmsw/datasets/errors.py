"""What is raised about data that cannot be used."""

from mmsw.errors import MmswError


class DataError(MmswError, ValueError):
    """An image or annotation file is missing, damaged or unfit; the message names it, in one line.

    It takes one text, so that it survives the way out of a data loader's worker process.
    """
