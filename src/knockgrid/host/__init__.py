"""What is taken from TransformerLens and `transformers`, behind names of our own.

Both change from week to week, so what lies here asks what is there and assumes nothing. No other
room imports their inner modules; `tests/unit/test_project.py` sees to it.

It may import `display`, `errors`.
"""
