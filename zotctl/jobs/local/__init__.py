"""Jobs on a directory, by the steps of docs/design/local.md.

gc      mark, plan, trash, wait, purge, and leftovers
trash   what `gc --list-trash` and `gc --restore` do
dedupe  links, and copies again
probe   what a file system can do
jobs    what `jobs.stores` asks of a root, `gc --explain` and `import-layout --link` with it
"""
