"""Bytes in key order, and the log that makes them durable; synchronous, and ignorant of SQL and Raft.

    engine      the port: get, scan, write a batch, snapshot, flush, checkpoint
    memory      a sorted map that can lose what was not flushed
    rocksdb     one RocksDB instance per shard; the only importer of rocksdict
    mvcc        versions, intents, records and the applied index inside one engine
    rowcodec    a row's columns as bytes, by schema version; valuecodec holds single values
    wal         one shard's Raft log: segments of checksummed records (wal_format has the bytes)
    layout      the data directory: names, identity files, the lock

Invariant: an engine never logs; after a crash it is a past state at a known applied index, and the
entries after that index are in `wal`. A batch is there whole or not at all.
"""
