"""The kinds of steps, one module each. `kinds.KINDS` lists them; `kind.Kind` is what a kind declares."""
