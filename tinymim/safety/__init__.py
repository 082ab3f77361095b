"""No file decides what runs, what is opened or what is written: all that is read of others goes through here.

text.py      YAML and JSON become plain data, of bounded size, before anything looks at it
wording.py   errors of the schemas, in the project's words
names.py     names out of files are plain: they lead nowhere
escaping.py  what leaves the project is escaped for where it goes: a terminal, Markdown, a cell of CSV
console.py   the console of tables, which shows what is printed as it is
signatures.py  files that are something else than they were taken for, named by their first bytes

Types and ranges of records, cards and ``config.json`` are in ``teachers/record_schemas.py``, those of run folders and
captured steps in ``training/run_schemas.py``, those of chains and studies in ``experiments``. Options that make a
network are in ``vit/network_options.py``, and every other one is refused by name. Classes that a file names are in
``config/class_paths.py``, pickles in ``teachers/safe_pickle.py``, and values of the environment in
``config/references.py``.
"""
