"""The command line: one file per group of commands.

It may import `display`, `edits`, `engine`, `errors`, `evidence`, `figures`, `host`, `passes`,
`prompts`, `reports`, `runs`, `sources`, `spec`, `stats`, `sweep`, `table`.
"""
