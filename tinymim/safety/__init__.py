"""No file decides what runs, what is opened or what is written: all that is read of others goes through here.

text.py      YAML and JSON become plain data, of bounded size, before anything looks at it
schemas.py   the types and ranges of records, cards and ``config.json``; run_schemas.py those of run folders and
             captured steps, outline_schemas.py those of chains and studies
network.py   the options that make a network; every other one is refused by name
names.py     names out of files are plain: they lead nowhere
shown.py     what leaves the project is escaped for where it goes: a terminal, Markdown, a cell of CSV

Classes that a file names are in ``config/class_paths.py``, pickles in ``teachers/safe_pickle.py``, values of the
environment in ``config/references.py``.
"""
