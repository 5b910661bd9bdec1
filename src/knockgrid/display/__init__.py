"""What a terminal, a notebook or a page shows: escaped text, listings, progress bars.

It may import `errors`.
"""
