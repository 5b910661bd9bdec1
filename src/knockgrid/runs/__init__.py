"""Run folders: begun, resumed, split over processes, verified, exported.

It may import `display`, `divergences`, `edits`, `engine`, `errors`, `evidence`, `host`, `passes`,
`prompts`, `sources`, `spec`, `table`.
"""
