"""What people look at in a browser: the page of `serve`, and the file of `--report`.

A view reads a bounded part of a store and returns plain values; a template writes them as HTML (`render.py`). Nothing
here is imported before the first page is asked for.
"""
