-- Writes the tables of this package from a PostgreSQL 15 server:
--   psql -AtX -v ON_ERROR_STOP=1 -f export.sql
-- Fields are tab-separated; lists are comma-separated; argument names and defaults are joined by '|'.
\pset fieldsep '\t'
\o pg_type.tsv
SELECT oid, typname, format_type(oid, NULL), typlen, typbyval, typtype, typcategory, typispreferred, typdelim,
       typelem, typarray, typinput, typoutput, typreceive, typsend, typmodin, typmodout, typalign, typstorage,
       typcollation, typsubscript
FROM pg_type t
WHERE oid < 13000 AND typtype IN ('b', 'p', 'r', 'm') AND typrelid = 0
  AND NOT EXISTS (SELECT FROM pg_type e WHERE e.oid = t.typelem AND e.typrelid <> 0 AND t.typcategory = 'A')
ORDER BY oid;
\o pg_proc.tsv
SELECT p.oid, proname, regexp_replace(prosrc, '\s+', ' ', 'g'), l.lanname, prokind, proretset, proisstrict,
       provolatile, provariadic, prorettype, array_to_string(proargtypes, ','),
       array_to_string(proallargtypes, ','), array_to_string(proargmodes, ','), array_to_string(proargnames, '|', ''),
       (SELECT string_agg(pg_get_function_arg_default(p.oid, n), '|' ORDER BY n)
        FROM generate_series(pronargs - pronargdefaults + 1, pronargs) n WHERE pronargdefaults > 0)
FROM pg_proc p JOIN pg_language l ON l.oid = prolang
WHERE p.oid < 16384 AND pronamespace = 'pg_catalog'::regnamespace
ORDER BY p.oid;
\o pg_operator.tsv
SELECT oid, oprname, oprkind, oprcanmerge, oprcanhash, oprleft, oprright, oprresult, oprcom, oprnegate, oprcode::oid
FROM pg_operator WHERE oid < 16384 ORDER BY oid;
\o pg_cast.tsv
SELECT oid, castsource, casttarget, castfunc, castcontext, castmethod FROM pg_cast WHERE oid < 16384 ORDER BY oid;
\o pg_aggregate.tsv
SELECT aggfnoid::oid, aggkind, aggnumdirectargs, aggtransfn::oid, aggfinalfn::oid, aggsortop, aggtranstype, agginitval
FROM pg_aggregate ORDER BY 1;
\o pg_amop.tsv
SELECT o.amoplefttype, o.amoprighttype, o.amopstrategy, o.amopopr, a.amname, f.opfname
FROM pg_amop o JOIN pg_am a ON a.oid = amopmethod JOIN pg_opfamily f ON f.oid = amopfamily
WHERE a.amname IN ('btree', 'hash') AND f.oid < 16384 AND f.opfname NOT LIKE '%pattern%'
ORDER BY a.amname, f.opfname, 1, 2, 3;
\o
\o keywords.tsv
SELECT word, upper(catcode), barelabel, catdesc, baredesc FROM pg_get_keywords();
\o
