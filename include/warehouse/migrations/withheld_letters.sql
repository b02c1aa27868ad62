-- Dead letters whose bytes are not stored, because they have masked fields or are old.

ALTER TABLE millrace.dead_letter ADD COLUMN withheld text CHECK (withheld IN ('masked', 'old'));
COMMENT ON TABLE millrace.dead_letter IS
    'Records that could not be landed (dead letter), or that came too late or too early (quarantined), unchanged unless '
    'withheld';
COMMENT ON COLUMN millrace.dead_letter.withheld IS
    'Why key, value and headers are not stored: the stream has masked fields (masked), or the letter is older than '
    'keep_dead_letters (old); null if they are stored';
CREATE INDEX ON millrace.dead_letter (stream) WHERE withheld IS NOT NULL;
