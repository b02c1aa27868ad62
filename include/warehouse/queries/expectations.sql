-- name: newest_samples(within_s)
-- The newest sample of each stream that is at most this old.
-- Null: lag, behind_s, stopped.
SELECT DISTINCT ON (stream) stream, lag, behind_s, stopped
FROM millrace.stream_sample
WHERE sampled_at > statement_timestamp() - make_interval(secs => :within_s)
ORDER BY stream, sampled_at DESC;

-- name: final_failures()
-- The error of each stream with a task that failed for a reason that a retry cannot fix.
SELECT DISTINCT ON (stream) stream, error FROM millrace.landing_failure WHERE is_final ORDER BY stream, since;

-- name: recent_dead_letters(stream, within_s, most)$
-- The number of a stream's dead letters and quarantined records stored within this time, counted up to ``most``.
-- Always a row.
SELECT count(*) FROM (
    SELECT FROM millrace.dead_letter
    WHERE stream = :stream AND kept_at > statement_timestamp() - make_interval(secs => :within_s)
    LIMIT :most
) AS recent;

-- name: last_training(dataset)^
-- When the last successful training of a dataset ended, and when its first version was sealed.
-- Always a row.
-- Null: trained_at, sealed_at.
SELECT (SELECT max(finished_at) FROM millrace.training_run WHERE dataset = :dataset AND state = 'success') AS trained_at,
       (SELECT min(sealed_at) FROM millrace.dataset_version WHERE dataset = :dataset) AS sealed_at;

-- name: champion_accuracy(dataset)^
-- The accuracy of a dataset's champion on the test rows of the newest version that the gate has handled: of its own run
-- if the champion is from there, or else as the gate measured it. Null where it was not measured.
-- Null: accuracy.
SELECT champion.model, left(newest.version, 12) AS version,
       coalesce(
           (SELECT metric.value FROM millrace.model_result AS result JOIN millrace.metric USING (result)
            WHERE result.run = newest.run AND champion.run = newest.run AND result.model = champion.model
              AND metric.name = 'accuracy'),
           (SELECT score.value FROM millrace.score
            JOIN millrace.champion_change AS judged
              ON judged.dataset = newest.dataset AND judged.number = newest.champion_number
            WHERE score.run = newest.run AND score.role = 'live' AND score.metric = 'accuracy' AND score.rows > 0
              AND judged.artifact = champion.artifact)
       ) AS accuracy
FROM millrace.champion AS champion
JOIN LATERAL (
    SELECT gate.run, gate.dataset, gate.version, gate.champion_number
    FROM millrace.gate JOIN millrace.dataset_version AS version USING (version)
    WHERE gate.dataset = champion.dataset
    ORDER BY coalesce(version.interval_end, version.sealed_at) DESC, version.number DESC, gate.run DESC
    LIMIT 1
) AS newest ON true
WHERE champion.dataset = :dataset;

-- name: open_failures()
-- The expectations that fail, or that have not held for long enough.
SELECT number, subject, expectation
FROM millrace.failed_expectation WHERE ended_at IS NULL ORDER BY number;

-- name: begin_failure(subject, expectation, detail, at, within_s)!
-- Records that an expectation fails, unless it failed already. If the previous failure ended less than this time before,
-- it must hold for as long until it is over.
INSERT INTO millrace.failed_expectation (subject, expectation, detail, failed_at, calm)
SELECT :subject, :expectation, :detail, CAST(:at AS timestamptz), CASE WHEN EXISTS (
    SELECT FROM millrace.failed_expectation
    WHERE subject = :subject AND expectation = :expectation
      AND ended_at > CAST(:at AS timestamptz) - make_interval(secs => :within_s)
) THEN make_interval(secs => :within_s) ELSE interval '0' END
ON CONFLICT (subject, expectation) WHERE ended_at IS NULL
DO UPDATE SET detail = excluded.detail, held_since = NULL;

-- name: hold(subject, expectation, at)!
-- Records that an expectation holds, and ends its failure once it has held for long enough.
UPDATE millrace.failed_expectation
SET held_since = coalesce(held_since, CAST(:at AS timestamptz)),
    ended_at = CASE WHEN coalesce(held_since, CAST(:at AS timestamptz)) + calm <= CAST(:at AS timestamptz)
                    THEN CAST(:at AS timestamptz) END
WHERE subject = :subject AND expectation = :expectation AND ended_at IS NULL;

-- name: withdraw(number, at)!
-- Ends the failure of an expectation that no definition has any more.
UPDATE millrace.failed_expectation SET ended_at = :at WHERE number = :number AND ended_at IS NULL;

-- name: current_failures(at, within_s)
-- The failures that are open or ended less than this time before, the newest of each expectation.
-- Null: held_since, ended_at.
SELECT DISTINCT ON (subject, expectation) number, subject, expectation, detail, failed_at, held_since, ended_at
FROM millrace.failed_expectation
WHERE ended_at IS NULL OR ended_at > CAST(:at AS timestamptz) - make_interval(secs => :within_s)
ORDER BY subject, expectation, number DESC;

-- name: claim_message(failure, message, notifier, at)!
-- Claims a message to a recipient: a new one, or one whose last attempt failed. One claim of two at the same time succeeds.
INSERT INTO millrace.expectation_message AS claimed (failure, message, notifier, claimed_at)
VALUES (:failure, :message, :notifier, CAST(:at AS timestamptz))
ON CONFLICT (failure, message, notifier) DO UPDATE
SET claimed_at = excluded.claimed_at, attempts = claimed.attempts + 1, error = NULL, retry_at = NULL
WHERE claimed.retry_at <= excluded.claimed_at;

-- name: note_sent(failure, message, notifier)!
-- Records that a claimed message was sent.
UPDATE millrace.expectation_message SET sent_at = clock_timestamp()
WHERE failure = :failure AND message = :message AND notifier = :notifier;

-- name: note_unsent(failure, message, notifier, error, at, base_s)!
-- Records why a claimed message was not sent, and when a check may try again: after a time that doubles with each attempt.
UPDATE millrace.expectation_message
SET error = :error,
    retry_at = CAST(:at AS timestamptz) + make_interval(secs => least(:base_s * 2 ^ attempts, 3600))
WHERE failure = :failure AND message = :message AND notifier = :notifier;
