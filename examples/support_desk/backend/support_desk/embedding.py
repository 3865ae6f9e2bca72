"""Text to vector, on this machine and always the same: no model, no download.

Words and the letter groups inside them are hashed into a fixed number of signed buckets. Two texts that share words,
or forms of one word, point in similar directions. That is enough for a knowledge base of short articles.
"""

from __future__ import annotations

import hashlib
import math
import re
from functools import lru_cache

DIMENSIONS = 512
# Part of the collection's name: vectors of two schemes must never meet in one collection.
SCHEME = "hash1"
_WORD = re.compile(r"[a-z0-9]+")
_STOP_WORDS = frozenset(
    [
        "a",
        "about",
        "am",
        "an",
        "and",
        "any",
        "are",
        "as",
        "at",
        "be",
        "been",
        "but",
        "by",
        "can",
        "could",
        "did",
        "do",
        "does",
        "for",
        "from",
        "get",
        "give",
        "had",
        "has",
        "have",
        "how",
        "i",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "just",
        "let",
        "like",
        "may",
        "me",
        "my",
        "need",
        "no",
        "not",
        "of",
        "on",
        "or",
        "our",
        "out",
        "please",
        "should",
        "so",
        "some",
        "tell",
        "than",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "to",
        "up",
        "us",
        "want",
        "was",
        "we",
        "were",
        "what",
        "when",
        "where",
        "which",
        "who",
        "why",
        "will",
        "with",
        "would",
        "you",
        "your",
    ]
)


def words(text: str) -> list[str]:
    """Return the words that carry meaning, without their commonest endings."""
    return [_stem(word) for word in _WORD.findall(text.lower().replace("'", "")) if word not in _STOP_WORDS]


def _stem(word: str) -> str:
    for ending in ("ing", "ies", "es", "ed", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            return word + "y" if ending == "ies" else word.removesuffix("e")
    return word.removesuffix("e") if len(word) > 3 else word


@lru_cache(maxsize=8192)
def _bucket(feature: str) -> tuple[int, float]:
    digest = hashlib.blake2b(feature.encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "big") % DIMENSIONS, 1.0 if digest[4] & 1 else -1.0


def embed(text: str) -> list[float]:
    """Return a vector of length one, or all zeros for text without meaning."""
    weights: dict[str, float] = {}
    for word in words(text):
        weights[f"w:{word}"] = weights.get(f"w:{word}", 0.0) + 1.0
        framed = f"^{word}$"
        grams = [framed[start : start + 4] for start in range(max(1, len(framed) - 3))]
        for gram in grams:
            feature = f"g:{gram}"
            weights[feature] = weights.get(feature, 0.0) + 0.35 / math.sqrt(len(grams))
    vector = [0.0] * DIMENSIONS
    for feature, weight in weights.items():
        index, sign = _bucket(feature)
        # The tenth mention of a word says little more than the second.
        vector[index] += sign * (1.0 + math.log(weight) if weight > 1.0 else weight)
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector] if length else vector


def similarity(one: list[float], other: list[float]) -> float:
    """Return the cosine of the angle between two vectors that `embed` made."""
    return sum(a * b for a, b in zip(one, other, strict=True))
