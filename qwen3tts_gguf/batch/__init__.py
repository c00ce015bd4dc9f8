"""Tables in, data sets out.

    lines.csv ──table──> rows ──plan──> shards ──work──> speeches, several at once ──outputs──> OUT

A row's speech depends on the row and the job alone, and every file of OUT appears whole. So work that was stopped goes
on where it was, and several processes share one OUT.
"""
