"""The explorer: runs the real code of two to three actors in every order of their steps, with faults in between.

`make explore` runs it; docs/explanation/faults.md says what it does and what it has found. A step is a statement,
a commit or an external effect (a provider call, a published task). One actor runs at a time; the others wait
before their next step. At each step there are also these variants: the process dies, the step is done but its
answer is lost, the step is not done, the clock jumps. Then everything comes to rest, and the promises in
`chaos.explore.promises` are checked.
"""
