-- Renames what a warehouse of the former, branched history has to the names of 0001_baseline, without touching a row.
-- Renaming keeps views and constraints of a person's own.

ALTER TABLE millrace.dataset_version RENAME forgotten_at TO expired_at;
ALTER TABLE millrace.reign RENAME TO champion_change;

DO $$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT attrelid::regclass AS relation, attname AS old,
               CASE attname
                   WHEN 'former' THEN 'rollback_to'
                   WHEN 'place' THEN 'rank'
                   WHEN 'reign' THEN CASE WHEN relname ~ '^champion' THEN 'number' ELSE 'champion_number' END
               END AS new
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = 'millrace'::regnamespace AND relkind IN ('r', 'v') AND attname IN ('reign', 'former', 'place')
    LOOP
        EXECUTE format('ALTER TABLE %s RENAME %I TO %I', found.relation, found.old, found.new);
    END LOOP;
    -- Constraints and indexes are named after the table and the columns that they had.
    FOR found IN
        SELECT conrelid::regclass AS relation, conname AS old,
               replace(replace(replace(conname, 'gate_reign', 'gate_champion_number'), 'reign_reign', 'reign_number'),
                       'former', 'rollback_to') AS new
        FROM pg_constraint WHERE conrelid IN ('millrace.champion_change'::regclass, 'millrace.gate'::regclass)
    LOOP
        found.new = regexp_replace(found.new, '^reign_', 'champion_change_');
        IF found.old <> found.new THEN
            EXECUTE format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I', found.relation, found.old, found.new);
        END IF;
    END LOOP;
END
$$;
ALTER INDEX millrace.gate_dataset_reign_idx RENAME TO gate_dataset_champion_number_idx;
