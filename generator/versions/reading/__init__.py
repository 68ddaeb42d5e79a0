"""Reading versions: `Dataset`, questions in SQL, the difference of two, and leaks between splits.

Not here: the difference as a page (`generator/web/diff_page.py`), and training data (`trainer/data/`).
"""
