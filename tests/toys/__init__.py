"""A distribution, a method and a metric, a file each, as somebody outside of the package would write them.

Nothing in the library knows of them. Planning imports such files, so they import torch only in what computes.
"""
