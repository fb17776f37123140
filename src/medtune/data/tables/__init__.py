"""One reader for each kind of table; `data/table_files.py` chooses among them."""
