"""Connections as a person reads them: what each segment did, and which rule gave each verdict.

`select` finds the records that are meant, `steps` plays their packets one by one through the tracker and notes its state
before and after, `dump` writes a segment as tcpdump does, `words` says what changed (`openings` where a record begins and of
SYNs), `errors` what became of an ICMP error, `verdicts` what the row came to, and `render` makes text or JSON of it all. Nothing here decides anything about a connection: every word follows from what the
tracker holds.
"""
