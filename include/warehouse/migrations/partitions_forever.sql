-- Partitions that are kept forever.

ALTER TABLE millrace.stream_setting ALTER COLUMN keep DROP NOT NULL;
COMMENT ON COLUMN millrace.stream_setting.keep IS 'How long a partition is kept after its end; null for forever';
COMMENT ON VIEW millrace.stream_partition IS
    'The partitions of each stream''s table with their size, and when retention drops them: drops_at is null if they are '
    'kept forever. rows is PostgreSQL''s estimate. It waits for sessions that hold an exclusive lock on a partition, so set '
    'lock_timeout. Filter by stream, order by partition, and set a limit';
