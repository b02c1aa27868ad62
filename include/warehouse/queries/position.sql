-- name: create_positions(reader, topic, topic_id, owner, partitions)!
-- Creates positions at offset 0 for partitions that were never read, so that their first record is read.
INSERT INTO millrace.position (reader, topic, partition, topic_id, next_offset, owner, backend_pid, backend_start)
SELECT :reader, :topic, partition, :topic_id, 0, :owner, pid, backend_start
FROM unnest(CAST(:partitions AS integer[])) AS partition, pg_stat_activity
WHERE pid = pg_backend_pid()
ON CONFLICT (reader, topic, partition) DO NOTHING;

-- name: lock_positions(reader, topic, partitions)
-- Locks the position rows in partition order, so that two claims cannot deadlock.
-- Null: leader_epoch.
SELECT partition, topic_id, next_offset, leader_epoch, epoch
FROM millrace.position
WHERE reader = :reader AND topic = :topic AND partition = ANY (:partitions)
ORDER BY partition
FOR UPDATE;

-- name: claim_positions(owner, reader, topic, partitions)!
-- Raises the epoch of locked rows and stores their new owner, which fences every older claim.
UPDATE millrace.position
SET epoch = epoch + 1, owner = :owner, backend_pid = pid, backend_start = activity.backend_start,
    updated_at = clock_timestamp()
FROM pg_stat_activity AS activity
WHERE pid = pg_backend_pid()
  AND reader = :reader AND topic = :topic AND partition = ANY (:partitions);

-- name: own_positions(reader, topic, partitions)!
-- Stores the new backend of the same owner, whose connection was lost.
UPDATE millrace.position
SET backend_pid = pid, backend_start = activity.backend_start
FROM pg_stat_activity AS activity
WHERE pid = pg_backend_pid()
  AND reader = :reader AND topic = :topic AND partition = ANY (:partitions);

-- name: end_owners(reader, topic, partitions)
-- Terminates the backends whose transactions lock the positions, if they are Millrace's and not a user's session, so that a
-- stopped client's locks are released. It finds them by the locking transactions: behind a pooler an owner has many backends.
SELECT DISTINCT activity.pid, pg_terminate_backend(activity.pid) AS ended
FROM millrace.position
JOIN pg_locks AS held ON held.locktype = 'transactionid' AND held.granted AND held.transactionid = position.xmax
JOIN pg_stat_activity AS activity ON activity.pid = held.pid
WHERE reader = :reader AND topic = :topic AND partition = ANY (:partitions) AND activity.pid <> pg_backend_pid()
  AND activity.usename = current_user
  AND starts_with(activity.application_name, 'millrace ') AND activity.application_name <> 'millrace accept';

-- name: advance_positions(partitions, epochs, expected, next, leader_epochs, reader, topic)
-- Moves positions from the expected offset to the next one; does not return a row that another claim has moved or taken.
-- Null: leader_epochs[].
WITH asked AS (
    SELECT * FROM unnest(
        CAST(:partitions AS integer[]), CAST(:epochs AS bigint[]), CAST(:expected AS bigint[]),
        CAST(:next AS bigint[]), CAST(:leader_epochs AS integer[])
    ) AS asked (partition, epoch, expected, next, leader_epoch)
), locked AS (
    SELECT position.partition, asked.next, asked.leader_epoch
    FROM millrace.position JOIN asked USING (partition)
    WHERE reader = :reader AND topic = :topic
      AND position.epoch = asked.epoch AND position.next_offset = asked.expected
    ORDER BY position.partition
    FOR UPDATE OF position
)
UPDATE millrace.position
SET next_offset = locked.next, leader_epoch = coalesce(locked.leader_epoch, position.leader_epoch),
    updated_at = clock_timestamp()
FROM locked
WHERE reader = :reader AND topic = :topic AND position.partition = locked.partition
RETURNING position.partition;

-- name: read_positions(reader, topic)
-- How far a reader has read each partition of a topic.
-- Null: leader_epoch.
SELECT partition, topic_id, next_offset, leader_epoch, epoch, owner, updated_at
FROM millrace.position
WHERE reader = :reader AND topic = :topic
ORDER BY partition;

-- name: read_topics(reader)
-- The topics in which a reader has positions.
SELECT DISTINCT topic FROM millrace.position WHERE reader = :reader ORDER BY topic;

-- name: set_position(topic_id, next, reader, topic, partition)!
-- Sets a locked position, and fences its reader.
UPDATE millrace.position
SET topic_id = :topic_id, next_offset = :next, leader_epoch = NULL, epoch = epoch + 1, updated_at = clock_timestamp()
WHERE reader = :reader AND topic = :topic AND partition = :partition;

-- name: drop_positions(reader, topic, partitions)!
-- Deletes the positions of partitions that a recreated topic no longer has.
DELETE FROM millrace.position
WHERE reader = :reader AND topic = :topic AND NOT partition = ANY (CAST(:partitions AS integer[]));

-- name: read_all_positions(readers, topics)
-- How far several readers have read their topics.
-- Null: leader_epoch.
SELECT reader, topic, partition, topic_id, next_offset, leader_epoch, epoch, owner, updated_at
FROM millrace.position
JOIN unnest(CAST(:readers AS text[]), CAST(:topics AS text[])) AS asked (reader, topic) USING (reader, topic)
ORDER BY reader, topic, partition;

-- name: fence_positions(reader)!
-- Fences the reader in all partitions of all topics.
UPDATE millrace.position SET epoch = epoch + 1, updated_at = clock_timestamp() WHERE reader = :reader;
