"""From prompts and interventions to rows: recording, trial, memory, executors, measures.

It may import `display`, `divergences`, `edits`, `errors`, `host`, `passes`, `prompts`, `sources`,
`spec`, `table`.
"""
