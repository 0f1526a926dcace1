"""Nouns of the small benchmarks in tests of real nouns, with their colours."""

FRUIT = {"banana": "yellow", "strawberry": "red", "lime": "green", "tomato": "red", "lemon": "yellow",
         "cucumber": "green", "cherry": "red", "pea": "green", "canary": "yellow", "fern": "green"}  # fmt: skip
