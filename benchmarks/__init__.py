"""kquant compared with ggml, gguf-py and a memory copy: `python -m benchmarks`.

One process, one thread each, inputs larger than the cache.  The contestants of a case alternate, so that
a busy machine slows them alike; what counts is the ratio within a turn.  Results are compared
before a time counts.
"""
