"""What is told of a run: the HTML report, the methods paragraph, its references and figures.

It may import `display`, `edits`, `errors`, `evidence`, `figures`, `runs`, `spec`, `stats`,
`table`.
"""
