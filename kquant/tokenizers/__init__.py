"""Text to token ids and back, with the vocabularies that GGUF files hold.

::

    Tokenizer        the public class: a file's vocabulary, its special tokens, both directions
    facts            what the keys of the metadata say, without the tokens
    vocabulary       the tokens, checked; which are special, and which end a generation
    pretokenizers    how text is cut into words before BPE, for each name that llama.cpp knows
    bpe, spm, wordpiece, unigram    the four algorithms, one module each: text -> ids

The ids are llama.cpp's, also where it differs from the tokenizers that the models were trained with.
https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp
"""

from kquant.tokenizers.tokenizer import Tokenizer

__all__ = ["Tokenizer"]
