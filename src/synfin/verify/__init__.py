"""What other tools say of a capture, beside synfin's rows: joined by connection, each difference with its reason.

Read lives.py (one connection as a tool cuts it, and synfin's), tools.py (runs the other tools; tcptrace.py reads what tcptrace
prints, tcptrace_rules.py tells what it makes of each packet), witness.py (what the slow tracker did with each packet), join.py
(puts them side by side), points.py and explain.py (a difference to its packets), classes.py and tcptrace_classes.py (the
reasons, as data and predicates) and report.py (the table). The other tools are run as programs, never linked.
"""
