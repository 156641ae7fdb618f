"""Shards that are led on other nodes than the one that serves: reads and numbered commands by message.

The serving node holds every lock and every mark of its tenure, also of shards that it does not lead, and is the only
one that commits. So of a shard elsewhere it needs two things: a copy of the state that is new enough, and a log that
takes each command once.

    serving node                                       a node with a replica
    stream.py    numbers commands, sends them,   ->    service.py   has them ordered by the leader (`Run`)
                 again until it knows
    replica.py   asks for what it reads,         ->    service.py   answers from its replica, if that has applied
                 naming the entry it knows                          the entry

*A tenure* begins in a shard with an entry (`Begin`): what older tenures still send comes after it and is refused, what
they were told was done is before it. *A command* has a number: the shard's state keeps how far it has come, so one that
is sent again is not applied again, and what became of it is remembered (`command.Applied`). So no election of such a
shard, and no lost message, leaves the serving node in doubt.

*A read* names the last entry that the serving node was told of. Every commit of this tenure that it has answered is in
that entry or before it, those of older ones are before `Begin`, and nobody else commits: any replica that has applied
the entry has the whole truth, whether it leads or not, and no lease is asked. What is being committed at that moment
has a mark at the serving node, which is looked at before (rule R2).
Source: the exactly-once sessions of Ongaro's thesis, section 6.3.
"""
