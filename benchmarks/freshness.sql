-- name: read_positions
-- Up to which offset each partition's rows are visible, and under which claim: rows and position come in one transaction.
SELECT partition, next_offset, epoch FROM millrace.position WHERE reader = :reader AND topic = :topic;

-- name: read_incarnation$
-- The newest incarnation of a topic of a stream.
SELECT max(number) FROM millrace.topic_incarnation WHERE stream = :stream AND topic = :topic;
