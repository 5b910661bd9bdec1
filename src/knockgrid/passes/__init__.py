"""One pass of a model: edits hooked in, logits, activations, keys and values taken out.

It may import `display`, `errors`, `host`, `prompts`.
"""
