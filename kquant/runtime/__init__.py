"""Runs models: programs, caches of keys and values, sampling, text.

`LanguageModel` is the door; `interpreter` does what `kquant.models` has written down.
"""
