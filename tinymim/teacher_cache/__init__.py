"""Readings of a frozen teacher on disk, for views that come again: the smallest thing that the targets need of it.

A folder holds what one teacher gives for one data set under one view transform, and is named by the hash of its key,
which lies in it as text (``storage.py``). In it is one file for each tap and view, of records of one size, the number
of a record being that of its image (``records.py``); what a record is of, and its int8, are in ``forms.py``.
"""
