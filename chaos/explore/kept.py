"""Schedules that once broke a promise. Each is run again before anything else is explored.

A schedule is `scenario:choices`: who did the next step, with a digit for what went wrong at it (`steps.Option`).
If the code has other steps by now, choices that are no longer possible are left out.
"""

from __future__ import annotations

#: Schedule → what it found.
KEPT: dict[str, str] = {
    "deliver:a2aa": "the answer to a claim is lost: its lease ran out whole, and a worker counted as dead",
    "deliver:a2aazzzzzzz2zzzzzzzzz2zz": "three times in a row: failed, its worker went away three times",
    "deliver:aa2a": "the answer to the start of an attempt is lost: that attempt stayed open for ever",
    "sms-deliver-sweep:aa2abbbbbzzzzzzzz2": "and later held a text message that nobody had been called for",
    "deliver-cancel:aa2abbbbbbbbbb": "cancelled with an attempt open for ever",
    "again-again:aabbbbaa": "two workers with one id (put back: `claim-twice`)",
    "deliver-unanswered:aa1bbaaaaaaaaaaaa": "the attempt of another worker taken for one's own (put back: "
    "`start-of-others`)",
    "sms-again-late:adbbbbbbcccccccaaaa": "a call begun after its lease, beside another (put back: `late-start`)",
    "sms-twins:aaaaabbbbb": "two notifications with one provider message (put back: `twins`)",
}
