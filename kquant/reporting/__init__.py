"""The report: one self-contained page about a file, for people who would rather look than read.

::

    file  →  facts  →  figures  →  page

`facts` asks `kquant.inspect`, `compare` and `sweep` and counts values; it needs no plotting library.  Each
module of `figures` makes pictures of facts, each with its text alternative and its table.  `page` puts
them into HTML.
"""
