"""The procedural, captioned, labelled video world that the embedded model is trained and judged on.

A clip is closed-form in time: `ClipSpec` (drawn from a seed) describes it, `render` evaluates it at any times
and resolution.
"""
