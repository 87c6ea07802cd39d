"""Everything that the documentation quotes, measured again by one command.

``jobs.py`` lists what is measured and where it goes, ``run.py`` does it, ``listing.py`` tells what
is there, and ``blocks.py`` compares the pages with the figures beside them.
"""
