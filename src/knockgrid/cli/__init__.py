"""The command line: one file per group of commands.

It may import `display`, `edits`, `engine`, `errors`, `evidence`, `figures`, `host`, `passes`,
`prompts`, `report`, `runs`, `sources`, `stats`, `sweep`, `table`.
"""
