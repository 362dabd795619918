"""The explorer: the real code of two to three actors, in every order of their steps, with faults between them.

`make explore` runs it; docs/explanation/faults.md says what it does and what it has found. A step is a statement,
a commit or an effect outside (a provider's call, a task that is published). One actor runs at a time; the others
stand before their next step. At each step also: the process dies, the answer is lost though it was done, it was
not done, the clock jumps. Everything then comes to rest, and the promises of `chaos.explore.promises` are checked.
"""
