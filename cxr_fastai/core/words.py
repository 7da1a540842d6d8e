"""Words that a person gives: lists as text with commas, and the nearest known one to a word that isn't. No torch."""
from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["WordError", "Words", "known_word", "nearest_word"]

class Words(str): "Text with commas; annotates a flag that takes several words."

class WordError(ValueError): "A word that isn't understood. A command ends with 2 by it, before anything is run."

def nearest_word(
    word:str,       # as it was given
    words:Iterable, # those that are known
) -> str:           # 'did you mean focal?'; '' where none is near
    "What may have been meant: whatever begins with the word, or is spelled almost so."
    words = list(dict.fromkeys(map(str, words)))
    begun = [o for o in words if o.startswith(word)] if word.strip("-") else []
    near = begun[:3] or get_close_matches(word.lower(), words, 1)
    return f"did you mean {' or '.join(near)}?" if near else ""

def known_word(
    name:str,       # of the setting
    value:str,      # as it was given
    words:Iterable, # that it may be
):
    "The value. WordError for one that is none of `words`, with the nearest."
    if value in words: return value
    near = nearest_word(str(value), words)
    raise WordError(f"{name}={value!r} is not known; use {' or '.join(words)}{near and f' ({near})'}.")
