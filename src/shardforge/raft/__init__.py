"""One consensus group's voter, PURE: messages and ticks in, work for the host out.

    RawNode.propose/step/tick  ->  RawNode.ready()  ->  the host persists, sends, applies  ->  step the responses

Nothing here waits, reads a clock, draws an unseeded number or touches a disk. See `rawnode` for the host's
loop, `log_storage` for what it must provide, and `messages` for what travels.
Source: etcd-io/raft (its shape and its test scripts), Ongaro's thesis (the rules).
"""
