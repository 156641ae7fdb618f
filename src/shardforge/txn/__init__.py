"""Transactions over many shards.

A transaction buffers its writes at the coordinator, holds row locks in the memory of the shards' leaders,
and commits by the six rules of `rules` below, which the modules quote by number:

R1  Row locks exclude writers; readers ignore them. COMMIT turns write locks into commit marks at the
    leaders (floor = the latest read timestamp) and draws the commit timestamp when all are held. Each
    prepare and one-shard entry names the term of its mark; in any other term it is refused.
R2  A reader at `ts` waits for, or resolves, each mark or intent with floor below `ts`, unless its commit
    timestamp is known to be above `ts`. A read without a timestamp is a read at infinity.
R3  After drawing, a serializable transaction checks every key and span that it read in (read timestamp,
    commit timestamp]; rows locked but not written are checked so at every isolation level.
R4  Each write names the version it was computed from; prepare refuses if that is not the newest.
R5  Commit and abort records are create-if-absent entries at the anchor key. Whoever meets an orphan
    writes ABORTED there first.
R6  A new leader serves nothing before an entry of its own term is applied.
"""
