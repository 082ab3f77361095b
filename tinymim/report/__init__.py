"""``tinymim report``: one page of a run, from its folder alone."""
