-- name: documented()
-- The columns of every table and view of the schema millrace, with the comments on both.
-- Null: about, comment.
SELECT CASE relkind WHEN 'r' THEN 'table' ELSE 'view' END AS kind, relname AS relation,
       obj_description(pg_class.oid, 'pg_class') AS about, attname AS name,
       format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN ', not null' ELSE '' END AS type,
       col_description(pg_class.oid, attnum) AS comment
FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
WHERE relnamespace = 'millrace'::regnamespace AND relkind IN ('r', 'v') AND relname <> 'schema_revision'
  AND attnum > 0 AND NOT attisdropped
ORDER BY relname, attnum;
