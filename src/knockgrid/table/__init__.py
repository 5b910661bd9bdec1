"""The table that a sweep returns: columns and units, grids, summaries, Parquet.

It may import `display`, `errors`.
"""
