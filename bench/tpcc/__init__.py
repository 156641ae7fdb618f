"""TPC-C, by the specification's revision 5.11: schema, load, transactions, terminals, consistency conditions."""
