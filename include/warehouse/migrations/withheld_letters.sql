-- Dead letters whose bytes are not stored, because they have masked fields or are old.

ALTER TABLE millrace.dead_letter ADD COLUMN withheld text;
-- In all rows that exist it is null. Without NOT VALID, PostgreSQL would read them all while nothing can land.
ALTER TABLE millrace.dead_letter ADD CHECK (withheld IN ('masked', 'old')) NOT VALID;
COMMENT ON TABLE millrace.dead_letter IS
    'Records that could not be landed (dead letter), or that came too late or too early (quarantined), unchanged unless '
    'withheld';
COMMENT ON COLUMN millrace.dead_letter.withheld IS
    'Why key, value and headers are not stored: the stream has masked fields (masked), or the letter is older than '
    'keep_dead_letters (old); null if they are stored';
