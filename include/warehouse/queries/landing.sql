-- name: lock_incarnations(stream)!
-- Lets only one process number the topics of a stream, until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('millrace incarnation ' || :stream, 0));

-- name: meet_incarnation(stream, topic, topic_id)!
-- Gives a topic of a stream the next number, unless it has one.
INSERT INTO millrace.topic_incarnation (stream, topic, number, topic_id)
SELECT :stream, :topic, coalesce(max(number), 0) + 1, :topic_id FROM millrace.topic_incarnation WHERE stream = :stream
HAVING NOT coalesce(bool_or(topic = :topic AND topic_id = :topic_id), false);

-- name: begin_incarnation(stream, topic, topic_id)$
-- Gives a topic whose log was truncated the next number, under the same id.
-- Always a row.
INSERT INTO millrace.topic_incarnation (stream, topic, number, topic_id)
SELECT :stream, :topic, max(number) + 1, :topic_id FROM millrace.topic_incarnation WHERE stream = :stream
RETURNING number;

-- name: read_incarnation(stream, topic, topic_id)$
-- The newest number of a topic of a stream.
-- Always a row.
SELECT max(number) FROM millrace.topic_incarnation
WHERE stream = :stream AND topic = :topic AND topic_id = :topic_id;

-- name: read_incarnations(stream)
-- The topics that a stream has read, with their ids, oldest first.
SELECT number, topic, topic_id FROM millrace.topic_incarnation WHERE stream = :stream ORDER BY number;

-- name: read_landed_topics(stream)
-- The topics of which a stream has landed records.
SELECT DISTINCT topic
FROM millrace.topic_incarnation AS known
JOIN millrace.landing_ledger AS ledger ON ledger.stream = known.stream AND ledger.kafka_incarnation = known.number
WHERE known.stream = :stream
ORDER BY topic;

-- name: lock_stream(stream)!
-- Lets only one process change a stream's table and its partitions, until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('millrace stream ' || :stream, 0));

-- name: read_kind(stream)$
-- The kind of the relation that has the name of a stream's table, such as p for a partitioned table; null if there is none.
SELECT CAST(relkind AS text) FROM pg_class WHERE oid = to_regclass('landing.' || quote_ident(:stream));

-- name: read_columns(stream)
-- The columns of a stream's table: type, whether NOT NULL, comment, whether it fills itself (a default, an identity),
-- whether it is generated, and whether Millrace created it NOT NULL; null for a column that a user added.
-- Null: made_required.
SELECT attname AS name, format_type(atttypid, atttypmod) AS type, attnotnull AS required,
       coalesce(col_description(attrelid, attnum), '') AS comment, atthasdef OR attidentity <> '' AS fills_itself,
       attgenerated <> '' AS is_generated, made.required AS made_required
FROM pg_attribute
LEFT JOIN millrace.landing_column AS made ON made.stream = :stream AND made.name = attname
WHERE attrelid = to_regclass('landing.' || quote_ident(:stream)) AND attnum > 0 AND NOT attisdropped
ORDER BY attnum;

-- name: note_columns(stream, names, required)!
-- Records columns that Millrace has created, or made nullable.
INSERT INTO millrace.landing_column (stream, name, required)
SELECT :stream, made.* FROM unnest(CAST(:names AS text[]), CAST(:required AS boolean[])) AS made
ON CONFLICT (stream, name) DO UPDATE SET required = excluded.required;

-- name: forget_columns(stream)!
-- Deletes the recorded columns of a table that was dropped, before it is created again.
DELETE FROM millrace.landing_column WHERE stream = :stream;

-- name: read_renamed(stream)
-- Other tables that have partitions with the names of the stream's partitions.
SELECT DISTINCT CAST(CAST(inhparent AS regclass) AS text) AS table_name, schema.nspname AS schema_name, parent.relname AS name
FROM pg_inherits
JOIN pg_class AS child ON child.oid = inhrelid AND child.relnamespace = 'landing'::regnamespace
JOIN pg_class AS parent ON parent.oid = inhparent
JOIN pg_namespace AS schema ON schema.oid = parent.relnamespace
WHERE child.relname ~ ('^' || :stream || '_[0-9]{8}(_[0-9]{4})?$')
  AND inhparent IS DISTINCT FROM to_regclass('landing.' || quote_ident(:stream));

-- name: read_locks(stream)
-- One row: how many partitions and indexes a stream's table has, and the number of locks for which PostgreSQL has room, as
-- the number of transactions and the locks of each.
SELECT (SELECT count(*) FROM pg_inherits WHERE inhparent = to_regclass('landing.' || quote_ident(:stream))) AS partitions,
       (SELECT count(*) FROM pg_index WHERE indrelid = to_regclass('landing.' || quote_ident(:stream))) AS indexes,
       CAST(current_setting('max_locks_per_transaction') AS bigint) AS per_transaction,
       CAST(current_setting('max_connections') AS bigint)
           + CAST(current_setting('max_prepared_transactions') AS bigint) AS transactions;

-- name: read_triggers(table)
-- The triggers and rules of a table and its partitions, which can change the rows that are written.
WITH members AS (
    SELECT CAST(relid AS oid) AS oid FROM pg_partition_tree(to_regclass(:table))
    UNION
    SELECT to_regclass(:table)
)
SELECT DISTINCT 'trigger ' || tgname AS name FROM pg_trigger
WHERE tgrelid IN (SELECT oid FROM members) AND NOT tgisinternal
UNION
SELECT 'rule ' || rulename FROM pg_rewrite WHERE ev_class IN (SELECT oid FROM members)
ORDER BY 1;

-- name: read_holders(stream, any_reader)
-- The sessions that hold locks on a stream's table, its partitions and the tables of its foreign keys, or that change it
-- for Millrace, longest first. It reads only catalogs: pg_partition_tree would wait for the lock in question.
-- Null: application_name, role, backend_type, since, query.
WITH RECURSIVE tree (relid) AS (
    SELECT CAST(to_regclass('landing.' || quote_ident(:stream)) AS oid)
    UNION
    SELECT inhrelid FROM pg_inherits JOIN tree ON inhparent = relid
), members AS (
    SELECT relid FROM tree
    UNION
    SELECT confrelid FROM pg_constraint
    WHERE contype = 'f' AND conrelid = to_regclass('landing.' || quote_ident(:stream))
    UNION
    SELECT conrelid FROM pg_constraint
    WHERE contype = 'f' AND confrelid = to_regclass('landing.' || quote_ident(:stream))
), held AS (
    SELECT DISTINCT pid, virtualtransaction FROM pg_locks
    WHERE granted AND pid IS DISTINCT FROM pg_backend_pid()
      AND (locktype = 'relation' AND relation IN (SELECT relid FROM members)
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND (CAST(:any_reader AS boolean) OR mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock'))
        OR locktype = 'advisory' AND objsubid = 1
           AND (CAST(CAST(classid AS bigint) AS bit(64)) << 32) | CAST(CAST(objid AS bigint) AS bit(64))
               = CAST(hashtextextended('millrace stream ' || :stream, 0) AS bit(64)))
)
SELECT held.pid, application_name, usename AS role, backend_type,
       coalesce(xact_start, query_start, backend_start) AS since,
       regexp_replace(left(query, 80), '\s+', ' ', 'g') AS query
FROM held
LEFT JOIN pg_stat_activity AS activity ON activity.pid = held.pid
ORDER BY 5 NULLS LAST;

-- name: read_dependents(table)
-- The objects that would have to be dropped with a partition and are not part of it, in words.
WITH RECURSIVE own (classid, objid) AS (
    SELECT CAST('pg_class'::regclass AS oid), CAST(CAST(:table AS regclass) AS oid)
    UNION
    SELECT part.classid, part.objid
    FROM own
    JOIN pg_depend AS part ON part.refclassid = own.classid AND part.refobjid = own.objid
    WHERE part.deptype IN ('a', 'i', 'P', 'S')
)
SELECT DISTINCT CASE
    WHEN relkind = 'v' THEN 'view ' || quote_ident(nspname) || '.' || quote_ident(relname)
    WHEN relkind = 'm' THEN 'materialized view ' || quote_ident(nspname) || '.' || quote_ident(relname)
    ELSE pg_describe_object(dependent.classid, dependent.objid, dependent.objsubid)
END AS dependent
FROM own
JOIN pg_depend AS dependent
  ON dependent.refclassid = own.classid AND dependent.refobjid = own.objid AND dependent.deptype = 'n'
LEFT JOIN pg_rewrite AS rule ON dependent.classid = 'pg_rewrite'::regclass AND rule.oid = dependent.objid
LEFT JOIN pg_class AS relation ON relation.oid = rule.ev_class
LEFT JOIN pg_namespace AS schema ON schema.oid = relation.relnamespace
WHERE (dependent.classid, dependent.objid) NOT IN (SELECT classid, objid FROM own)
  -- A foreign key to the whole table has such a part for each partition, which goes with the detachment.
  AND NOT EXISTS (
      SELECT FROM pg_constraint AS part
      WHERE dependent.classid = 'pg_constraint'::regclass AND part.oid = dependent.objid AND part.conparentid <> 0
  )
ORDER BY 1;

-- name: read_constraints(stream)
-- The CHECK and FOREIGN KEY constraints of a stream's table in the order in which they are applied: SQLSTATE, kind, name,
-- and an expression over screened that is false for a row that violates them. None if a trigger can change rows.
SELECT CASE contype WHEN 'c' THEN '23514' ELSE '23503' END AS sqlstate,
       CASE contype WHEN 'c' THEN 'check' ELSE 'foreign key' END AS kind,
       conname AS name,
       CASE contype
           WHEN 'c' THEN pg_get_expr(conbin, conrelid)
           ELSE (
               SELECT string_agg('screened.' || quote_ident(mine.attname) || ' IS NULL', ' OR ')
                   || ' OR EXISTS (SELECT FROM ' || CAST(CAST(confrelid AS regclass) AS text) || ' AS referenced WHERE '
                   || string_agg(
                       'referenced.' || quote_ident(theirs.attname) || ' = screened.' || quote_ident(mine.attname), ' AND '
                   ) || ')'
               FROM unnest(conkey, confkey) AS pair (mine, theirs)
               JOIN pg_attribute AS mine ON mine.attrelid = conrelid AND mine.attnum = pair.mine
               JOIN pg_attribute AS theirs ON theirs.attrelid = confrelid AND theirs.attnum = pair.theirs
           )
       END AS holds
FROM pg_constraint
WHERE conrelid = to_regclass('landing.' || quote_ident(:stream))
  AND (contype = 'c' OR contype = 'f' AND confmatchtype = 's')
  AND right(pg_get_constraintdef(pg_constraint.oid), 12) <> 'NOT ENFORCED'
  AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = conrelid AND NOT tgisinternal)
ORDER BY contype, conname;

-- name: read_partition_key(stream)$
-- The partition key of a stream's table, such as RANGE (ts).
SELECT pg_get_partkeydef(to_regclass('landing.' || quote_ident(:stream)));

-- name: read_partitions(mark, stream)
-- The partitions of a stream's table, with their bounds in PostgreSQL's notation, and whether a detachment is unfinished.
SELECT schema.nspname AS schema_name, child.relname AS name, pg_get_expr(child.relpartbound, child.oid) AS bounds,
       inhdetachpending AS is_detaching, obj_description(child.oid, 'pg_class') IS NOT DISTINCT FROM :mark AS is_marked
FROM pg_inherits
JOIN pg_class AS child ON child.oid = inhrelid
JOIN pg_namespace AS schema ON schema.oid = child.relnamespace
WHERE inhparent = to_regclass('landing.' || quote_ident(:stream))
ORDER BY child.relname;

-- name: read_indexes(stream, mark)
-- The indexes of a stream's table that have a comment.
SELECT index.relname AS name
FROM pg_index
JOIN pg_class AS index ON index.oid = indexrelid
WHERE indrelid = to_regclass('landing.' || quote_ident(:stream)) AND obj_description(index.oid, 'pg_class') = :mark
ORDER BY 1;

-- name: read_unindexed(stream, index)
-- The partitions of a stream's table that lack their part of an index, the newest first, and whether an index for it is
-- built and only not attached; none if the index does not exist.
SELECT schema.nspname AS schema_name, child.relname AS name, CAST(child.oid AS bigint) AS oid,
       EXISTS (
           SELECT FROM pg_index AS own
           JOIN pg_class AS built ON built.oid = own.indexrelid
           WHERE own.indrelid = child.oid AND own.indisvalid AND built.relname = 'ix' || right(:index, 12) || '_' || child.oid
       ) AS is_built
FROM pg_inherits AS part
JOIN pg_class AS child ON child.oid = part.inhrelid
JOIN pg_namespace AS schema ON schema.oid = child.relnamespace
WHERE part.inhparent = to_regclass('landing.' || quote_ident(:stream)) AND NOT part.inhdetachpending
  AND child.relkind = 'r' AND to_regclass('landing.' || quote_ident(:index)) IS NOT NULL
  AND NOT EXISTS (
      SELECT FROM pg_inherits AS attached
      JOIN pg_index AS own ON own.indexrelid = attached.inhrelid
      WHERE attached.inhparent = to_regclass('landing.' || quote_ident(:index)) AND own.indrelid = child.oid
  )
ORDER BY child.relname DESC;

-- name: read_detached(stream, mark)
-- Tables that were detached from a stream's table to be dropped, as their mark shows. Other tables with such names are a
-- user's.
SELECT relname AS name
FROM pg_class
WHERE relnamespace = 'landing'::regnamespace AND relkind = 'r' AND NOT relispartition
  AND relname ~ ('^' || :stream || '_[0-9]{8}(_[0-9]{4})?$') AND obj_description(oid, 'pg_class') = :mark
ORDER BY relname;

-- name: add_to_ledger(stream, incarnation, partitions, epochs, first, next, landed, dead_letters, quarantined, filtered, skipped, no_records, checksums, newest)!
-- Adds the dispositions of a batch's offsets to the ledger entries of its claims.
-- Null: newest[].
INSERT INTO millrace.landing_ledger AS ledger (
    stream, kafka_incarnation, kafka_partition, epoch, first_offset, next_offset,
    landed, dead_letters, quarantined, filtered, skipped, no_records, checksum, newest_event
)
SELECT :stream, :incarnation, batch.*
FROM unnest(
    CAST(:partitions AS integer[]), CAST(:epochs AS bigint[]), CAST(:first AS bigint[]), CAST(:next AS bigint[]),
    CAST(:landed AS bigint[]), CAST(:dead_letters AS bigint[]), CAST(:quarantined AS bigint[]),
    CAST(:filtered AS bigint[]), CAST(:skipped AS bigint[]), CAST(:no_records AS bigint[]),
    CAST(:checksums AS numeric[]), CAST(:newest AS timestamptz[])
) AS batch
ON CONFLICT (stream, kafka_incarnation, kafka_partition, epoch) DO UPDATE
SET next_offset = excluded.next_offset,
    landed = ledger.landed + excluded.landed,
    dead_letters = ledger.dead_letters + excluded.dead_letters,
    quarantined = ledger.quarantined + excluded.quarantined,
    filtered = ledger.filtered + excluded.filtered,
    skipped = ledger.skipped + excluded.skipped,
    no_records = ledger.no_records + excluded.no_records,
    checksum = ledger.checksum + excluded.checksum,
    newest_event = greatest(ledger.newest_event, excluded.newest_event),
    updated_at = clock_timestamp();

-- name: read_totals(stream)^
-- The dispositions of a stream's offsets so far, in all partitions and incarnations.
-- Null: newest_event, updated_at.
-- Always a row.
SELECT CAST(coalesce(sum(landed), 0) AS bigint) AS landed, CAST(coalesce(sum(dead_letters), 0) AS bigint) AS dead_letters,
       CAST(coalesce(sum(quarantined), 0) AS bigint) AS quarantined, CAST(coalesce(sum(filtered), 0) AS bigint) AS filtered,
       CAST(coalesce(sum(skipped), 0) AS bigint) AS skipped,
       CAST(coalesce(sum(no_records), 0) AS bigint) AS no_records, max(newest_event) AS newest_event, max(updated_at) AS updated_at
FROM millrace.landing_total
WHERE stream = :stream;

-- name: read_clock()$
-- The time by PostgreSQL's clock.
-- Always a row.
SELECT clock_timestamp();

-- name: add_gap(stream, incarnation, partition, first, next, choice, accepted_by)!
-- Records the choice that a user accepted.
-- Null: next.
INSERT INTO millrace.landing_gap (
    stream, kafka_incarnation, kafka_partition, first_offset, next_offset, choice, accepted_by
)
VALUES (:stream, :incarnation, :partition, :first, :next, :choice, :accepted_by);

-- name: read_gaps(stream)
-- The choices that users accepted for a stream, oldest first.
-- Null: next_offset.
SELECT kafka_incarnation, kafka_partition, first_offset, next_offset, choice, accepted_by, accepted_at
FROM millrace.landing_gap
WHERE stream = :stream
ORDER BY gap;

-- name: read_accepted_bad(stream, incarnation)
-- For each partition, the offset below which all records may be bad.
SELECT kafka_partition, max(next_offset) AS until
FROM millrace.landing_gap
WHERE stream = :stream AND kafka_incarnation = :incarnation AND choice = 'bad'
GROUP BY kafka_partition;

-- name: read_ledger(stream)
-- The dispositions of a stream's offsets, by claim.
SELECT kafka_incarnation, kafka_partition, first_offset, next_offset,
       landed, dead_letters, quarantined, filtered, skipped, no_records, checksum, started_at
FROM millrace.landing_ledger
WHERE stream = :stream
ORDER BY kafka_incarnation, kafka_partition, first_offset, epoch;

-- name: read_kept(stream, incarnation, partition, first, next)
-- The dead letters and quarantined records of a range of offsets.
SELECT kafka_offset, disposition
FROM millrace.dead_letter
WHERE stream = :stream AND kafka_incarnation = :incarnation AND kafka_partition = :partition
  AND kafka_offset >= :first AND kafka_offset < :next;

-- name: lock_dead_letters(stream, incarnation, partition, offset, most)
-- The next dead letters after given coordinates, with the lengths of their values, without those that another retry holds.
SELECT kafka_incarnation, kafka_partition, kafka_offset, coalesce(octet_length(value), 0) AS bytes
FROM millrace.dead_letter
WHERE stream = :stream AND disposition = 'dead letter' AND (value IS NOT NULL OR withheld IS NOT NULL)
  AND (kafka_incarnation, kafka_partition, kafka_offset)
      > (CAST(:incarnation AS smallint), CAST(:partition AS integer), CAST(:offset AS bigint))
ORDER BY kafka_incarnation, kafka_partition, kafka_offset
LIMIT :most
FOR UPDATE SKIP LOCKED;

-- name: read_dead_letters(incarnations, partitions, offsets, stream)
-- The keys, values and headers of dead letters, in the order of their coordinates.
-- Null: key, value, headers.
SELECT kafka_incarnation, kafka_partition, kafka_offset, appended_at, key, value, headers, withheld IS NOT NULL AS is_withheld
FROM millrace.dead_letter
JOIN unnest(
    CAST(:incarnations AS smallint[]), CAST(:partitions AS integer[]), CAST(:offsets AS bigint[])
) AS place (kafka_incarnation, kafka_partition, kafka_offset) USING (kafka_incarnation, kafka_partition, kafka_offset)
WHERE stream = :stream
ORDER BY kafka_incarnation, kafka_partition, kafka_offset;

-- name: withhold(stream, before, why, most)!
-- Deletes the bytes of dead letters and quarantined records that were stored before a time, unless they were withheld as
-- masked. Those that are masked now lose their reasons, too, because these may quote values. The letters stay.
UPDATE millrace.dead_letter
SET key = NULL, value = NULL, headers = NULL, withheld = CAST(:why AS text),
    reason = CASE WHEN CAST(:why AS text) = 'masked' AND disposition = 'dead letter'
                  THEN 'the reason is not stored, because the stream has masked fields' ELSE reason END
FROM (
    SELECT kafka_incarnation, kafka_partition, kafka_offset
    FROM millrace.dead_letter
    WHERE stream = :stream AND kept_at < :before
      AND coalesce(withheld, '') NOT IN ('masked', CAST(:why AS text))
    LIMIT :most
    FOR UPDATE SKIP LOCKED
) AS old
WHERE dead_letter.stream = :stream
  AND dead_letter.kafka_incarnation = old.kafka_incarnation
  AND dead_letter.kafka_partition = old.kafka_partition
  AND dead_letter.kafka_offset = old.kafka_offset;

-- name: hold_dead_letters(incarnations, partitions, offsets, stream)
-- Locks the given dead letters that still exist and that no other session holds.
SELECT kafka_incarnation, kafka_partition, kafka_offset
FROM millrace.dead_letter
JOIN unnest(CAST(:incarnations AS smallint[]), CAST(:partitions AS integer[]), CAST(:offsets AS bigint[]))
     AS asked (kafka_incarnation, kafka_partition, kafka_offset)
USING (kafka_incarnation, kafka_partition, kafka_offset)
WHERE stream = :stream AND disposition = 'dead letter'
ORDER BY kafka_incarnation, kafka_partition, kafka_offset
FOR UPDATE OF dead_letter SKIP LOCKED;

-- name: close_dead_letters(incarnations, partitions, offsets, filtered, stream)!
-- Deletes dead letters that have landed or are filtered, and counts them so in the ledger entries that counted them.
WITH asked AS (
    SELECT * FROM unnest(
        CAST(:incarnations AS smallint[]), CAST(:partitions AS integer[]), CAST(:offsets AS bigint[]),
        CAST(:filtered AS boolean[])
    ) AS asked (kafka_incarnation, kafka_partition, kafka_offset, is_filtered)
), closed AS (
    DELETE FROM millrace.dead_letter
    USING asked
    WHERE stream = :stream
      AND dead_letter.kafka_incarnation = asked.kafka_incarnation
      AND dead_letter.kafka_partition = asked.kafka_partition
      AND dead_letter.kafka_offset = asked.kafka_offset
    RETURNING asked.*
), counted AS (
    SELECT ledger.kafka_incarnation, ledger.kafka_partition, ledger.epoch, count(*) AS closed,
           count(*) FILTER (WHERE is_filtered) AS filtered
    FROM closed
    JOIN millrace.landing_ledger AS ledger
      ON ledger.stream = :stream
     AND ledger.kafka_incarnation = closed.kafka_incarnation
     AND ledger.kafka_partition = closed.kafka_partition
     AND closed.kafka_offset >= ledger.first_offset AND closed.kafka_offset < ledger.next_offset
    GROUP BY ledger.kafka_incarnation, ledger.kafka_partition, ledger.epoch
)
UPDATE millrace.landing_ledger AS ledger
SET landed = ledger.landed + counted.closed - counted.filtered, filtered = ledger.filtered + counted.filtered,
    dead_letters = ledger.dead_letters - counted.closed, updated_at = clock_timestamp()
FROM counted
WHERE ledger.stream = :stream
  AND ledger.kafka_incarnation = counted.kafka_incarnation
  AND ledger.kafka_partition = counted.kafka_partition
  AND ledger.epoch = counted.epoch;

-- name: list_dead_letters(stream, reason, most)
-- A stream's newest dead letters and quarantined records whose reason or SQLSTATE contains a text.
SELECT kafka_incarnation, kafka_partition, kafka_offset, disposition, coalesce(sqlstate, '') AS sqlstate, reason,
       appended_at
FROM millrace.dead_letter
WHERE stream = :stream AND position(lower(:reason) IN lower(concat_ws(' ', disposition, sqlstate, reason))) > 0
ORDER BY kept_at DESC, kafka_incarnation DESC, kafka_partition, kafka_offset DESC
LIMIT :most;

-- name: count_dead_letters(stream, reason)
-- The numbers of dead letters and quarantined records by reason, where reasons that differ only in numbers are one:
-- disposition, SQLSTATE, reason, count, bytes of their values.
SELECT disposition, coalesce(sqlstate, '') AS sqlstate,
       CASE WHEN count(DISTINCT reason) = 1 THEN min(reason) ELSE kind END AS reason,
       count(*) AS records, sum(bytes) AS bytes
FROM millrace.dead_letter AS letter
WHERE stream = :stream AND position(lower(:reason) IN lower(concat_ws(' ', disposition, sqlstate, reason))) > 0
GROUP BY disposition, coalesce(letter.sqlstate, ''), kind
ORDER BY 4 DESC, 1, 2, 3;

-- name: read_dead_letter(stream, partition, offset, incarnation)^
-- One dead letter or quarantined record; by default of the newest incarnation that has one at this offset.
-- Null: incarnation, sqlstate, event_time, key, value, headers, withheld.
SELECT kafka_incarnation, disposition, sqlstate, reason, appended_at, event_time, kept_at, key, value, headers,
       withheld
FROM millrace.dead_letter
WHERE stream = :stream AND kafka_partition = :partition AND kafka_offset = :offset
  AND kafka_incarnation = coalesce(CAST(:incarnation AS smallint), kafka_incarnation)
ORDER BY kafka_incarnation DESC
LIMIT 1;

-- name: read_claims(stream, incarnation)
-- The ledger's entries of one incarnation, by their first offsets, with their claims and how many records were filtered.
SELECT kafka_partition, first_offset, epoch, filtered
FROM millrace.landing_ledger
WHERE stream = :stream AND kafka_incarnation = :incarnation
ORDER BY kafka_partition, first_offset, epoch;

-- name: lock_replay(stream)!
-- Lets only one process replay a stream, until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('millrace replay ' || :stream, 0));

-- name: hold_kept(stream, incarnation, partition, first, next)
-- Locks the dead letters and quarantined records of a range of offsets, so that no retry lands them in the meantime.
SELECT kafka_offset, disposition
FROM millrace.dead_letter
WHERE stream = :stream AND kafka_incarnation = :incarnation AND kafka_partition = :partition
  AND kafka_offset >= :first AND kafka_offset < :next
ORDER BY kafka_offset
FOR UPDATE;

-- name: drop_kept(stream, incarnation, partition, first, next, missing)!
-- Deletes the dead letters and quarantined records of a range of offsets, except those whose records Kafka no longer has.
DELETE FROM millrace.dead_letter
WHERE stream = :stream AND kafka_incarnation = :incarnation AND kafka_partition = :partition
  AND kafka_offset >= :first AND kafka_offset < :next AND kafka_offset <> ALL (CAST(:missing AS bigint[]));

-- name: correct_ledger(newest, epochs, landed, dead_letters, quarantined, filtered, skipped, stream, incarnation, partition)!
-- Moves counts of ledger entries from one disposition to another; the changes of an entry add up to zero.
-- Null: newest.
UPDATE millrace.landing_ledger AS ledger
SET landed = ledger.landed + change.landed,
    dead_letters = ledger.dead_letters + change.dead_letters,
    quarantined = ledger.quarantined + change.quarantined,
    filtered = ledger.filtered + change.filtered,
    skipped = ledger.skipped + change.skipped,
    newest_event = greatest(ledger.newest_event, CAST(:newest AS timestamptz)),
    updated_at = clock_timestamp()
FROM unnest(
    CAST(:epochs AS bigint[]), CAST(:landed AS bigint[]), CAST(:dead_letters AS bigint[]), CAST(:quarantined AS bigint[]),
    CAST(:filtered AS bigint[]), CAST(:skipped AS bigint[])
) AS change (epoch, landed, dead_letters, quarantined, filtered, skipped)
WHERE ledger.stream = :stream AND ledger.kafka_incarnation = :incarnation AND ledger.kafka_partition = :partition
  AND ledger.epoch = change.epoch;

-- name: add_replay(stream, incarnation, partition, first, next, landed, dead_letters, quarantined, filtered, more_landed, more_dead_letters, more_quarantined, more_filtered, more_skipped, replayed_by)!
-- Records a range that was replayed.
INSERT INTO millrace.landing_replay (
    stream, kafka_incarnation, kafka_partition, first_offset, next_offset, landed, dead_letters, quarantined,
    filtered, more_landed, more_dead_letters, more_quarantined, more_filtered, more_skipped, replayed_by
)
VALUES (
    :stream, :incarnation, :partition, :first, :next, :landed, :dead_letters, :quarantined,
    :filtered, :more_landed, :more_dead_letters, :more_quarantined, :more_filtered, :more_skipped, :replayed_by
);

-- name: add_unfilled(stream, incarnation, columns, partitions, first, next)!
-- Records ranges of offsets that land without the values of columns that do not exist yet.
INSERT INTO millrace.landing_unfilled AS marked (
    stream, kafka_incarnation, kafka_partition, first_offset, next_offset, columns
)
SELECT :stream, :incarnation, range.*, CAST(:columns AS text[])
FROM unnest(CAST(:partitions AS integer[]), CAST(:first AS bigint[]), CAST(:next AS bigint[])) AS range
ON CONFLICT (stream, kafka_incarnation, kafka_partition) DO UPDATE
SET first_offset = least(marked.first_offset, excluded.first_offset),
    next_offset = greatest(marked.next_offset, excluded.next_offset),
    columns = ARRAY(SELECT DISTINCT unnest(marked.columns || excluded.columns) ORDER BY 1);

-- name: read_unfilled(stream)
-- The ranges of a stream that landed without the values of some columns.
SELECT kafka_incarnation, kafka_partition, first_offset, next_offset, columns, since
FROM millrace.landing_unfilled
WHERE stream = :stream
ORDER BY kafka_incarnation, kafka_partition;

-- name: close_unfilled(next, stream, incarnation, partition, first)!
-- Removes a replayed range from the beginning of a partition's unfilled range.
WITH shortened AS (
    UPDATE millrace.landing_unfilled
    SET first_offset = :next
    WHERE stream = :stream AND kafka_incarnation = :incarnation AND kafka_partition = :partition
      AND first_offset >= :first AND first_offset < :next AND next_offset > :next
)
DELETE FROM millrace.landing_unfilled
WHERE stream = :stream AND kafka_incarnation = :incarnation AND kafka_partition = :partition
  AND first_offset >= :first AND next_offset <= :next;

-- name: forget_unfilled(stream, incarnation, topic)!
-- Deletes the unfilled ranges of former incarnations of a topic, whose records Kafka no longer has.
DELETE FROM millrace.landing_unfilled
WHERE stream = :stream AND kafka_incarnation <> :incarnation AND kafka_incarnation IN (
    SELECT number FROM millrace.topic_incarnation WHERE stream = :stream AND topic = :topic
);

-- name: note_failure(stream, task, error, code, remedy, is_final)!
-- Records that a task of a stream failed.
-- Null: code, remedy.
INSERT INTO millrace.landing_failure AS failure (stream, task, error, code, remedy, is_final)
VALUES (:stream, :task, :error, :code, :remedy, :is_final)
ON CONFLICT (stream, task) DO UPDATE
SET last_at = clock_timestamp(), failures = failure.failures + 1, error = excluded.error, code = excluded.code,
    remedy = excluded.remedy, is_final = excluded.is_final;

-- name: forget_failure(stream, task)!
-- Records that a task of a stream succeeded.
DELETE FROM millrace.landing_failure WHERE stream = :stream AND task = :task;

-- name: read_failures(stream)
-- The failing tasks of a stream.
SELECT task, since, last_at, failures, error FROM millrace.landing_failure WHERE stream = :stream ORDER BY since;

-- name: hold_ledger(stream)!
-- Prevents the ledger's entries of a stream from being merged, until the transaction ends.
SELECT pg_advisory_xact_lock_shared(hashtextextended('millrace ledger ' || :stream, 0));

-- name: lock_ledger(stream)!
-- Waits for all sessions that correct the ledger's entries of a stream, and blocks them until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('millrace ledger ' || :stream, 0));

-- name: merge_ledger(before, droppable_until, stream)!
-- Merges old entries without a gap between them: those of one day into one, and those whose rows retention may have
-- dropped into one. It never merges the entry of a partition's last claim.
WITH entry AS (
    SELECT *,
           updated_at < :before AND epoch < max(epoch) OVER (PARTITION BY kafka_incarnation, kafka_partition) AS is_old,
           CASE WHEN started_at >= :droppable_until THEN date_trunc('day', started_at, 'UTC') END AS day
    FROM millrace.landing_ledger
    WHERE stream = :stream
), bounded AS (
    SELECT *, (lag(next_offset) OVER place, lag(is_old) OVER place, lag(day) OVER place)
              IS DISTINCT FROM (first_offset, is_old, day) AS begins
    FROM entry
    WINDOW place AS (PARTITION BY kafka_incarnation, kafka_partition ORDER BY first_offset, epoch)
), numbered AS (
    SELECT *, count(*) FILTER (WHERE begins) OVER (
               PARTITION BY kafka_incarnation, kafka_partition ORDER BY first_offset, epoch
           ) AS island
    FROM bounded
), old AS (
    SELECT *, max(epoch) OVER (PARTITION BY kafka_incarnation, kafka_partition, island) AS into_epoch
    FROM numbered
    WHERE is_old
), gone AS (
    DELETE FROM millrace.landing_ledger AS ledger
    USING old
    WHERE ledger.stream = old.stream AND ledger.kafka_incarnation = old.kafka_incarnation
      AND ledger.kafka_partition = old.kafka_partition AND ledger.epoch = old.epoch
      AND old.epoch < old.into_epoch
    RETURNING ledger.*, old.into_epoch
), summed AS (
    SELECT kafka_incarnation, kafka_partition, into_epoch, min(first_offset) AS first_offset, sum(landed) AS landed,
           sum(dead_letters) AS dead_letters, sum(quarantined) AS quarantined, sum(filtered) AS filtered,
           sum(skipped) AS skipped, sum(no_records) AS no_records, sum(checksum) AS checksum, max(newest_event) AS newest_event,
           min(started_at) AS started_at
    FROM gone
    GROUP BY kafka_incarnation, kafka_partition, into_epoch
)
UPDATE millrace.landing_ledger AS ledger
SET first_offset = least(ledger.first_offset, summed.first_offset),
    landed = ledger.landed + summed.landed,
    dead_letters = ledger.dead_letters + summed.dead_letters,
    quarantined = ledger.quarantined + summed.quarantined,
    filtered = ledger.filtered + summed.filtered,
    skipped = ledger.skipped + summed.skipped,
    no_records = ledger.no_records + summed.no_records,
    checksum = ledger.checksum + summed.checksum,
    newest_event = greatest(ledger.newest_event, summed.newest_event),
    started_at = least(ledger.started_at, summed.started_at)
FROM summed
WHERE ledger.stream = :stream
  AND ledger.kafka_incarnation = summed.kafka_incarnation
  AND ledger.kafka_partition = summed.kafka_partition
  AND ledger.epoch = summed.into_epoch;

-- name: forget_failures(stream)!
-- Deletes the recorded failures of a stream, after a user has accepted a choice.
DELETE FROM millrace.landing_failure WHERE stream = :stream;

-- name: read_wrong_totals(stream)
-- The partitions whose total differs from the sum of their ledger entries.
SELECT kafka_incarnation, kafka_partition
FROM (
    SELECT kafka_incarnation, kafka_partition, sum(landed) AS landed, sum(dead_letters) AS dead_letters,
           sum(quarantined) AS quarantined, sum(filtered) AS filtered, sum(skipped) AS skipped,
           sum(no_records) AS no_records
    FROM millrace.landing_ledger WHERE stream = :stream
    GROUP BY kafka_incarnation, kafka_partition
) AS ledger
FULL JOIN (SELECT * FROM millrace.landing_total WHERE stream = :stream) AS total
    USING (kafka_incarnation, kafka_partition)
WHERE (ledger.landed, ledger.dead_letters, ledger.quarantined, ledger.filtered, ledger.skipped, ledger.no_records)
    IS DISTINCT FROM
      (total.landed, total.dead_letters, total.quarantined, total.filtered, total.skipped, total.no_records)
ORDER BY 1, 2;

-- name: add_proof(stream, proved_by, started_at, compared, dropped, unfilled, wrong)!
-- Stores the result of a proof.
INSERT INTO millrace.landing_proof (stream, proved_by, started_at, compared, dropped, unfilled, wrong)
VALUES (:stream, :proved_by, :started_at, :compared, :dropped, :unfilled, CAST(:wrong AS text[]));

-- name: read_current(stream)^
-- What the current state of a stream is kept by: key, order, deletions. No row if none is kept.
-- Null: order_by, deletes.
SELECT key, order_by, deletes FROM millrace.landing_current WHERE stream = :stream;

-- name: note_current(stream, key, order_by, deletes)!
-- Records that the current state of a stream has been filled.
-- Null: order_by, deletes.
INSERT INTO millrace.landing_current (stream, key, order_by, deletes)
VALUES (:stream, CAST(:key AS text[]), :order_by, :deletes)
ON CONFLICT (stream) DO UPDATE
SET key = excluded.key, order_by = excluded.order_by, deletes = excluded.deletes, filled_at = clock_timestamp();

-- name: forget_current(stream)!
-- Records that the current state of a stream is no longer kept up to date.
DELETE FROM millrace.landing_current WHERE stream = :stream;

-- name: read_key(stream)$
-- The columns of the primary key of a table of the schema landing, in their order; null if it has none.
SELECT array_agg(CAST(attname AS text) ORDER BY place)
FROM pg_index, unnest(CAST(indkey AS smallint[])) WITH ORDINALITY AS part (number, place)
JOIN pg_attribute ON attrelid = to_regclass('landing.' || quote_ident(:stream)) AND attnum = number
WHERE indrelid = to_regclass('landing.' || quote_ident(:stream)) AND indisprimary;
