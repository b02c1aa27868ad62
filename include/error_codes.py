"""The codes of all errors that a user can meet, with what each means and what to do.

A code is stable: programs, alerts and tests may rely on it, sentences may change. ``python -m include.error_codes >
docs/errors.md`` writes the reference; a test keeps it current.
"""

from __future__ import annotations

from enum import StrEnum, unique


@unique
class Code(StrEnum):
    """One kind of error: its value is the code as it is shown.

    Attributes:
        meaning: What is wrong, in one or two sentences, without the values of a single case.
        remedy: What to do about it.
    """

    meaning: str
    remedy: str

    def __new__(cls, code: str, meaning: str, remedy: str) -> Code:
        """A member from its three strings."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning, member.remedy = meaning, remedy
        return member

    # Definitions
    INVALID_DEFINITION = (
        "invalid-definition",
        "A field of a definition has an invalid value.",
        "Correct the field that the message names, then run `./millrace check`.",
    )
    UNKNOWN_DEFINITION = (
        "unknown-definition",
        "No file of `include/datasets` or `include/streams` defines the dataset or stream of this name.",
        "Correct the name, or write the definition with `./millrace new`.",
    )
    BROKEN_DEFINITION = (
        "broken-definition",
        "A definition file cannot be imported: it has a syntax error, or its code raises an exception.",
        "Fix the line that the message names, or move the file out of the folder.",
    )
    DEFINITION_MISSING = (
        "definition-missing",
        "A Python file in `include/datasets` or `include/streams` does not define a `dataset` or a `stream`.",
        "Assign the definition to the variable that the message names, or move the file out of the folder.",
    )
    DEFINITION_EXISTS = (
        "definition-exists",
        "Another dataset or stream already has this name.",
        "Choose another name.",
    )
    INVALID_NAME = (
        "invalid-name",
        "The name of a new dataset or stream contains characters that a table, a topic or a DAG cannot have.",
        "Use a lower-case letter, then lower-case letters, digits and underscores.",
    )

    # Topics that a definition is written from
    TOPIC_EMPTY = (
        "topic-empty",
        "The topic from which a sample was to be read has no records, or only tombstones.",
        "Start the producer of the topic, then run the command again.",
    )
    RECORDS_UNSUPPORTED = (
        "records-unsupported",
        "Most records of a topic are in a format for which the command cannot write a definition.",
        "The message names the format. docs/streams.md, section topics that cannot land, says what to do with each; "
        "event=Json lands any JSON.",
    )

    # Sources and files
    FILE_NOT_FOUND = (
        "file-not-found",
        "A file that a definition or a command names does not exist.",
        "Put the file there, or correct the path.",
    )
    INVALID_PATH = (
        "invalid-path",
        "A path cannot be used for a source: it is a directory, or its name is not UTF-8.",
        "Name a file, or rename it.",
    )
    FILE_EMPTY = (
        "file-empty",
        "The file of a source has no rows.",
        "Provide a file with rows.",
    )
    FORMAT_UNSUPPORTED = (
        "format-unsupported",
        "A file is neither delimited text nor Parquet, or it is an archive of several files.",
        "Save the rows as CSV or Parquet. Unpack an archive.",
    )
    FILE_UNREADABLE = (
        "file-unreadable",
        "A file cannot be read with the options of its `File` source: the file is damaged, or it has another "
        "delimiter, encoding or number of columns.",
        "Use the options that the message proposes, or correct the file.",
    )
    HEADER_UNCLEAR = (
        "header-unclear",
        "`./millrace new dataset` cannot decide whether the first line of a file names the columns.",
        "Pass `--header` or `--no-header`.",
    )
    COLUMN_MISSING = (
        "column-missing",
        "A definition or an option names a column that the source does not have.",
        "Use one of the columns that the message lists.",
    )
    COLUMN_DUPLICATED = (
        "column-duplicated",
        "Two columns of a source have the same name.",
        "Rename one of them: in the file, in the query with `AS`, or in the option `number=`.",
    )
    TYPE_MISMATCH = (
        "type-mismatch",
        "A column has values that do not fit its type: the type in `types=`, or the one that PostgreSQL returns.",
        "Correct `types=`, list texts that mean a missing value in `nulls=`, or convert the column in the source.",
    )
    COLUMN_UNUSABLE = (
        "column-unusable",
        "A column has a type that its role in the definition does not allow, such as a list as a feature.",
        "Name another column, or convert this one to text or a number in the source.",
    )
    TARGET_UNUSABLE = (
        "target-unusable",
        "The target cannot be predicted: it is a date, it is empty, it has one value only, or it does not fit `kind`.",
        "Name another target, or change `kind`.",
    )
    TARGET_UNCLEAR = (
        "target-unclear",
        "`./millrace new dataset` cannot decide which values of the target are numbers, classes or missing.",
        "Pass the option that the message names, such as `--kind`, `--null` or `--thousands`.",
    )
    RECORD_ID_NOT_UNIQUE = (
        "record-id-not-unique",
        "The record id does not identify every row: some rows have no value, or share one.",
        "Name a column whose value is different in every row, or remove these rows in the source.",
    )
    VALUES_MISSING = (
        "values-missing",
        "A column that needs a value in every row, such as the event time or the column of a split, has nulls.",
        "Fill in the values, remove these rows in the source, or name another column.",
    )
    VALUES_INFINITE = (
        "values-infinite",
        "A feature or the target has infinite values, and scikit-learn's estimators accept finite ones only.",
        "Have the source return null instead, or leave the column out of `features`.",
    )
    FEATURES_MISSING = (
        "features-missing",
        "No column is left for models to learn from.",
        "Name columns in `features`, or add columns with numbers or categories to the source.",
    )
    PACKAGE_UNAVAILABLE = (
        "package-unavailable",
        "The function of a `Packaged` source cannot be imported.",
        'Write it as "package.module:function", and install the package.',
    )
    QUERY_FAILED = (
        "query-failed",
        "PostgreSQL refuses the query of a source, or the query returns no columns.",
        "Correct the SQL in the definition. `./millrace check` tries it without running it.",
    )
    QUERY_INTERRUPTED = (
        "query-interrupted",
        "PostgreSQL ended the query of a source: a restart, a lock or a time limit.",
        "Nothing, if it happens once: the task tries again. Otherwise raise the limit that the message names.",
    )
    SOURCE_CHANGED = (
        "source-changed",
        "The rows of a source changed while it was being read. Nothing was published.",
        "Publish again when nothing writes to the source.",
    )
    SOURCE_FAILED = (
        "source-failed",
        "The code of a source raised an exception.",
        "Fix the code of the source, or its arguments in the definition.",
    )

    # Versions: publishing and reading
    NOTHING_TO_PUBLISH = (
        "nothing-to-publish",
        "The interval has no rows, or its rows do not give both a training and a test part with two classes to learn.",
        "Choose another interval or another split. A scheduled run skips the interval.",
    )
    INVALID_MANIFEST = (
        "invalid-manifest",
        "A record on the topic `millrace.manifests` is not a manifest, or it contradicts itself.",
        "Correct the program that wrote it; docs/manifest.md describes the format. The record and the reason are in "
        "`millrace.refused_manifest`.",
    )
    UNKNOWN_VERSION = (
        "unknown-version",
        "The dataset has no version with this id or interval.",
        "Publish one with `./millrace publish`, or list the versions with the query that the message gives.",
    )
    AMBIGUOUS_VERSION = (
        "ambiguous-version",
        "Several versions of the dataset begin with these digits.",
        "Write more digits of the version's id.",
    )
    VERSION_EXPIRED = (
        "version-expired",
        "The version's messages were deleted from Kafka, because the dataset's `keep` allows it.",
        "Use a later version, or publish the interval again.",
    )
    VERSION_TRIMMED = (
        "version-trimmed",
        "Messages of the version are no longer in Kafka: the topic was deleted, or its retention removed them.",
        "Publish the interval again. Set `retention.ms=-1` and `retention.bytes=-1` on the topic.",
    )
    VERSION_SHORT = (
        "version-short",
        "Kafka does not have messages that the version's manifest lists.",
        "Publish the interval again, and find out how the topic lost them.",
    )
    VERSION_ALTERED = (
        "version-altered",
        "The rows of the version are not the rows that its manifest describes.",
        "Publish the interval again, and find out which program wrote the messages.",
    )
    VERSION_UNLISTED = (
        "version-unlisted",
        "A message claims to belong to the version and is not in its manifest.",
        "Publish the interval again, and find out which program wrote the message.",
    )
    VERSION_OPEN = (
        "version-open",
        "The version's messages lie after a Kafka transaction that is still open.",
        "Wait until the transaction times out; the task tries again. If it does not end, find its producer.",
    )
    VERSION_REPEATED = (
        "version-repeated",
        "A record id occurs more than once in the version, or is missing.",
        "Correct the program that published the version, and publish again.",
    )
    VERSION_LEAKING = (
        "version-leaking",
        "Rows of the version are in the wrong part: the split rule of the manifest puts them into the other one.",
        "Correct the program that published the version, and publish again.",
    )
    RETENTION_TOO_SHORT = (
        "retention-too-short",
        "A setting of the dataset's topic makes Kafka delete a version that is still needed.",
        "Set `retention.ms=-1`, `retention.bytes=-1` and `cleanup.policy=delete` on the topic.",
    )

    # Kafka and connections
    CONNECTION_UNDEFINED = (
        "connection-undefined",
        "The Airflow connection `millrace_kafka` or `millrace_postgres` is not defined.",
        "Run the command through `./millrace`, or define the connection in Airflow.",
    )
    CONNECTION_INVALID = (
        "connection-invalid",
        "An Airflow connection is not valid JSON, has no brokers, or has a parameter that the client does not accept.",
        "Correct the connection; `./millrace env` prints a valid one.",
    )
    POSTGRES_UNREACHABLE = (
        "postgres-unreachable",
        "PostgreSQL does not answer at the address of the connection `millrace_postgres`.",
        "Start the platform with `./millrace up`, or correct the connection.",
    )
    CONNECTIONS_EXHAUSTED = (
        "connections-exhausted",
        "PostgreSQL has no free connection.",
        "End clients that stay connected; `./millrace doctor` names them.",
    )
    KAFKA_REQUEST_FAILED = (
        "kafka-request-failed",
        "A request to Kafka failed: the brokers are down or unreachable, or they refuse it.",
        "Start the platform with `./millrace up`, or correct the Airflow connection `millrace_kafka`.",
    )
    READ_STALLED = (
        "read-stalled",
        "A range of offsets was not read to its end, and no more records arrived.",
        "Check the brokers with `./millrace status`, and end an open transaction of a producer. Then try again.",
    )
    SEND_FAILED = (
        "send-failed",
        "Kafka did not accept or confirm messages of a transaction. Nothing was published.",
        "Check the brokers with `./millrace status`, then publish again.",
    )
    TOPIC_MISSING = (
        "topic-missing",
        "The topic does not exist. If a stream has read it before, it was deleted.",
        "Create the topic or start its producer; for a stream whose topic was deleted: "
        "`./millrace accept STREAM recreated`.",
    )
    TOPIC_RECREATED = (
        "topic-recreated",
        "The topic was deleted and created again. The stored offsets name records of the old topic.",
        "To continue with the new topic from offset 0: `./millrace accept STREAM recreated`.",
    )
    OFFSETS_REMOVED = (
        "offsets-removed",
        "Retention removed records from the topic before they were read.",
        "To continue after them and record them as lost: `./millrace accept STREAM lost`. Raise the topic's retention.",
    )
    LOG_TRUNCATED = (
        "log-truncated",
        "The topic's log ends below the stored position, or was rewritten there. Kafka lost records that were read.",
        "To keep their rows and continue where the log was cut: `./millrace accept STREAM truncated`.",
    )
    POSITIONS_TAKEN_OVER = (
        "positions-taken-over",
        "Another process has claimed the partitions. This one has written nothing since.",
        "Nothing, if the other process is the next task of the same DAG. Otherwise end one of the two.",
    )

    # Streams, landing and replay
    KEY_MOVED = (
        "key-moved",
        "Records of one key are in two partitions of the topic, so that their offsets do not say which is newer. The "
        "stream has stopped; no record was skipped.",
        "Name the field that orders the records of a key in the definition, `order_by`, and unpause the DAG.",
    )
    STATE_REFUSED = (
        "state-refused",
        "PostgreSQL refuses a row of a stream's state table, because of a constraint or trigger that a user added.",
        "Drop it. Constraints of the stream's own table make dead letters instead.",
    )
    DEFINITION_CHANGED = (
        "definition-changed",
        "The definition of a stream changed while a replay or a retry of dead letters was running.",
        "Run the command again.",
    )
    ALL_RECORDS_REJECTED = (
        "all-records-rejected",
        "None of the records of a large batch can be landed. The definition is probably wrong.",
        "Correct the definition. If the records are bad: `./millrace accept STREAM bad` makes them dead letters.",
    )
    SCHEMA_UNKNOWN = (
        "schema-unknown",
        "The schema registry does not have the schema that a record names. No record was skipped.",
        "Register the schema under this id again, or correct the connection to the registry. If the schema is lost: "
        "`./millrace accept STREAM bad` makes these records dead letters.",
    )
    SCHEMA_INCOMPATIBLE = (
        "schema-incompatible",
        "No record of a schema can become an event of the stream: a required field is missing in the schema, a type "
        "does not fit, or the schema is of another format. No record was skipped.",
        "Correct the definition; `./millrace check STREAM` compares it with all schemas of the topic. If the records "
        "are bad: `./millrace accept STREAM bad` makes them dead letters.",
    )
    SOURCE_TRUNCATED = (
        "source-truncated",
        "The source table of a stream of change events was truncated, which ends all rows of its current state. "
        "Debezium sends one record for that, to one partition of the topic, so no order is known between it and the "
        "changes in other partitions. No record was skipped, and the current state has not changed.",
        "`./millrace accept STREAM bad` makes the record a dead letter; rows that the source no longer has then stay "
        "in the current state. To begin again from the source, use a new topic and a stream of a new name. To never "
        "get such records, keep Debezium's default `skipped.operations=t`.",
    )
    REGISTRY_UNAVAILABLE = (
        "registry-unavailable",
        "The schema registry does not answer, or answers with an error. No record was skipped.",
        "Start it, or correct the connection that the definition names. Landing waits, and continues by itself.",
    )
    REGISTRY_REFUSED = (
        "registry-refused",
        "The schema registry refuses a request: the login is wrong or has no permission, or it rejects a schema.",
        "Correct the login of the connection, its permissions, or what the message names.",
    )
    SCHEMA_NOT_MADE = (
        "schema-not-made",
        "`./millrace produce` cannot make a schema from the struct of a stream.",
        "Change the type of the field that the message names, or send your own events to the topic.",
    )
    NOTHING_TO_ACCEPT = (
        "nothing-to-accept",
        "The stream did not stop for the reason that was accepted.",
        "Read why it stopped with `./millrace doctor` or in the log of its DAG, and accept that.",
    )
    NOTHING_TO_REPLAY = (
        "nothing-to-replay",
        "The stream has not landed any of the records that were asked for, or Kafka has removed all of them.",
        "Choose a range that has landed and that Kafka still holds; the message names it.",
    )
    REPLAY_INTERRUPTED = (
        "replay-interrupted",
        "A replay ended before it reached the end of its range. What it committed stays.",
        "Run the same command again: it replays what Kafka still holds.",
    )
    VALUES_EXPIRED = (
        "values-expired",
        "Rows landed without the values of new columns, and Kafka has removed the records that hold these values.",
        "Run `./millrace replay STREAM`: it fills what Kafka still holds. The other rows keep NULL.",
    )
    UNKNOWN_DEAD_LETTER = (
        "unknown-dead-letter",
        "No dead letter or quarantined record has these coordinates.",
        "List them with `./millrace dead-letters STREAM`.",
    )
    LOCK_TIMEOUT = (
        "lock-timeout",
        "Another session holds a lock on the stream's table for too long.",
        "Wait: the change is tried again. Or end the session that the message names: "
        "`./millrace psql -c 'SELECT pg_terminate_backend(PID)'`.",
    )
    TABLE_INCOMPATIBLE = (
        "table-incompatible",
        "The stream's table cannot follow its definition without losing or reinterpreting rows.",
        "Undo the change of the definition, or give the stream a new name and with it a new table.",
    )
    COLUMN_CONFLICT = (
        "column-conflict",
        "A column that a user added to the stream's table, or changed, prevents rows from landing.",
        "Change the column as the message says, or drop it.",
    )
    NAME_TAKEN = (
        "name-taken",
        "A relation that Millrace did not create has the name that a stream's table or partition needs.",
        "Rename that relation, or give the stream another name.",
    )
    DEFAULT_PARTITION = (
        "default-partition",
        "The stream's table has a default partition, so PostgreSQL cannot add or detach partitions as Millrace needs.",
        "Detach it: `ALTER TABLE landing.STREAM DETACH PARTITION NAME`.",
    )
    PARTITION_IN_USE = (
        "partition-in-use",
        "A partition is past its retention, but a view, a foreign key or another object depends on it.",
        "Drop the object, or let it refer to the stream's table in place of the partition.",
    )
    BLOCKED_BY_TRIGGER = (
        "blocked-by-trigger",
        "A trigger or rule of the stream's table discards rows that are inserted, or keeps rows from being deleted.",
        "Disable the trigger, or let it return the row.",
    )
    STATEMENT_REFUSED = (
        "statement-refused",
        "PostgreSQL refuses a statement, and a retry cannot succeed: a permission is missing or the table was changed.",
        "Grant the permission or undo the change that PostgreSQL's message names.",
    )
    INDEX_NOT_BUILT = (
        "index-not-built",
        "An index that the definition declares cannot hold the rows of a partition, such as a long text.",
        "Remove the index from the definition, or leave it: the other partitions have it.",
    )
    MAINTENANCE_INCOMPLETE = (
        "maintenance-incomplete",
        "Several parts of a stream's maintenance failed; the rest was done.",
        "Fix each problem that the message lists. The next maintenance tries again.",
    )
    SIMULATION_MISSING = (
        "simulation-missing",
        "The stream has no function that simulates events.",
        "Give its definition `simulate=…`, or send your own events to its topic.",
    )
    SIMULATION_FAILED = (
        "simulation-failed",
        "The `simulate` function of a stream raised an exception, or ended.",
        "Correct the function: it takes a `random.Random` and yields events without end.",
    )
    EVENT_REJECTED = (
        "event-rejected",
        "Kafka rejected a simulated event.",
        "Correct what the message names: the event's size, or the topic's settings and permissions.",
    )

    # Training
    UNKNOWN_PARAMETER = (
        "unknown-parameter",
        "A run was started with a parameter that its DAG does not have.",
        "Start it again with the names that the message lists.",
    )
    INVALID_PARAMETER = (
        "invalid-parameter",
        "A parameter of a run has a value that cannot be used.",
        "Start the run again with a correct value.",
    )
    INVALID_INTERVAL = (
        "invalid-interval",
        "An interval or a range ends before it begins.",
        "Exchange its start and its end.",
    )
    DISPATCH_INCOMPLETE = (
        "dispatch-incomplete",
        "The dispatch could not start a training run for every new version.",
        "Read the logs of the tasks `land` and `start`. The next run of the dispatch tries the missing runs again.",
    )
    UNKNOWN_MODEL = (
        "unknown-model",
        "The dataset or the training run has no model of this name.",
        "Use one of the names that the message lists.",
    )
    INVALID_GRID = (
        "invalid-grid",
        "The grid of a training run names an unknown model or parameter, has a value that the estimator does not "
        "accept, or has too many candidates.",
        'Correct the grid; it has the form `{"forest": {"max_depth": [3, 5]}}`.',
    )
    RUN_NOT_FOUND = (
        "run-not-found",
        "No training run has this number or this id.",
        "Look it up in the table `millrace.training_run`, or in Airflow.",
    )
    RUN_UNSUCCESSFUL = (
        "run-unsuccessful",
        "The training run is still running or has failed, so it cannot be used here.",
        "Wait until it has ended, or choose a run that ended with `success`.",
    )
    RUN_FAILED = (
        "run-failed",
        "A training run ended without a plan, or without the result of one or more of its models.",
        "Read the logs of the tasks that the message names, fix the cause and train again: `./millrace train`.",
    )
    FIT_FAILED = (
        "fit-failed",
        "An estimator raised an error when it was fitted on, or evaluated on, the rows of a version.",
        "Make the model accept such rows, for example with an imputer or an encoder in its pipeline, or correct the "
        "source.",
    )
    UNLISTED_CLASS = (
        "unlisted-class",
        "The rows of a version have a class that its manifest does not list.",
        "Publish the dataset again: `./millrace publish`.",
    )
    PARTIAL_FIT_MISSING = (
        "partial-fit-missing",
        "A model has to learn in batches, because the definition demands it or the version does not fit into "
        "`memory_limit`, and one of its steps has no `partial_fit`.",
        "Use a model whose steps all have `partial_fit`, raise `memory_limit`, or publish fewer rows.",
    )
    MEMORY_LIMIT_EXCEEDED = (
        "memory-limit-exceeded",
        "The fit of a model needed more memory than its definition allows, and was ended.",
        "Raise `memory_limit` in the definition, publish fewer rows, or use a model with `partial_fit`.",
    )
    TIME_LIMIT_EXCEEDED = (
        "time-limit-exceeded",
        "The fit of a model took longer than its definition allows, and was ended.",
        "Raise `time_limit` in the definition, publish fewer rows, or make the model smaller.",
    )
    RUN_NOT_REPRODUCED = (
        "run-not-reproduced",
        "A training run that was trained again came out different.",
        "Read the findings. If no library has changed, the data or the stored results were modified.",
    )

    # Models, champions and promotion
    MODEL_NOT_STORABLE = (
        "model-not-storable",
        "An estimator cannot be stored without code, so it could never be loaded as champion.",
        "Use estimators of scikit-learn, or a class of the definition that its field `trusted` names.",
    )
    UNTRUSTED_TYPE = (
        "untrusted-type",
        "A stored model contains types or functions that are not allowed. Nothing of it was executed.",
        "If they belong to the definition, name them in its field `trusted`. Otherwise do not use the model.",
    )
    ARTIFACT_CHANGED = (
        "artifact-changed",
        "The bytes of a stored model do not have the SHA-256 that was recorded when it was trained.",
        "Find out who changed the table. Restore a backup, or train again.",
    )
    ARTIFACT_UNREADABLE = (
        "artifact-unreadable",
        "The bytes of a stored model are not a complete artifact in the current format of skops.",
        "Train the model again.",
    )
    PREDICTION_MISMATCH = (
        "prediction-mismatch",
        "A loaded model does not predict what it predicted when it was trained.",
        "Install the library versions of its training run, or train again.",
    )
    FEATURES_INCOMPATIBLE = (
        "features-incompatible",
        "The rows do not have the columns, or the types, that the model was trained on.",
        "Give the rows these columns in these types, or train a model on rows of the new form.",
    )
    TARGET_INCOMPATIBLE = (
        "target-incompatible",
        "The champion predicts another target, or other classes, than the version has.",
        "Make the source deliver the target as before, or retire the champion: `./millrace champion DATASET --retire`.",
    )
    PREDICTION_FAILED = (
        "prediction-failed",
        "A model raised an error when it predicted the test records of a version.",
        "Make the model accept such rows, or retire the champion: `./millrace champion DATASET --retire`.",
    )
    OUTCOMES_MISMATCH = (
        "outcomes-mismatch",
        "The outcomes stored with a training run do not belong to the test records of its version.",
        "Train on the version again: `./millrace train DATASET --version VERSION`.",
    )
    CHAMPION_MISSING = (
        "champion-missing",
        "The dataset has no champion: no model has beaten the baseline yet, or the last champion was retired.",
        "See why with `./millrace champion DATASET`. The next model that beats the baseline becomes champion.",
    )
    CHAMPION_CHANGED = (
        "champion-changed",
        "The champion changed after the decision to replace it was made. Nothing was changed.",
        "Look at the new champion with `./millrace champion DATASET` and decide again.",
    )
    NO_PREVIOUS_CHAMPION = (
        "no-previous-champion",
        "The champion is the first of its dataset, so a rollback has no earlier champion to restore.",
        "Retire the champion instead: `./millrace champion DATASET --retire`.",
    )
    UNKNOWN_CHAMPION = (
        "unknown-champion",
        "The dataset never had a champion of this number.",
        "Use a number of the view `millrace.champion_history`.",
    )
    MODEL_REPLACED = (
        "model-replaced",
        "The model was trained again after the gate judged it, so the evidence is about other bytes.",
        "Start a new training run: `./millrace train DATASET`.",
    )
    MODEL_UNUSABLE = (
        "model-unusable",
        "The stored model cannot be loaded, or does not predict what it predicted at its training.",
        "Start a new training run: `./millrace train DATASET`.",
    )
    ACTION_OVERTAKEN = (
        "action-overtaken",
        "Another user did the same, or the opposite, after you opened the page. Your action was not done.",
        "Look at the page again, and decide again.",
    )
    MODEL_NOT_NAMED = (
        "model-not-named",
        "An approval names no model, and the gate recommends none.",
        "Trigger the DAG `promote__<dataset>` again with the number of the run, and choose a model.",
    )
    RUN_NOT_JUDGED = (
        "run-not-judged",
        "The gate has not compared the training run with the champion.",
        "Name a run that ended with `success`, and wait for its task `gate`.",
    )
    ALREADY_ANSWERED = (
        "already-answered",
        "The promotion was approved, declined or refused before; the first answer counts.",
        "To promote a model all the same, start a new training run: `./millrace train DATASET`.",
    )

    # The platform and the command line
    INVALID_SETTING = (
        "invalid-setting",
        "A setting in Airflow's section `millrace` has a value that it cannot have.",
        'Set it to a duration such as "30 days": `MILLRACE_AIRFLOW__MILLRACE__KEEP_HISTORY="30 days"`.',
    )
    SETTING_MISSING = (
        "setting-missing",
        "An environment variable that the workers need is not set.",
        "Set the variable that the message names on the workers, or pause the DAG.",
    )
    METADATA_UNAVAILABLE = (
        "metadata-unavailable",
        "Airflow's own database refuses connections or is down.",
        "Start it, or correct the URL in `MILLRACE_METADATA`. The task is retried.",
    )
    AIRFLOW_CLEAN_FAILED = (
        "airflow-clean-failed",
        "The command `airflow db clean`, which deletes old rows of Airflow's tables, failed.",
        "Run it yourself with the options of the task's log, and read its output.",
    )
    BENCHMARK_RUNNING = (
        "benchmark-running",
        "Another benchmark of the same kind is running, and both would measure each other.",
        "Wait for its end.",
    )
    BENCHMARK_FAILED = (
        "benchmark-failed",
        "A benchmark, or a tool that it compares with, ended with an error or with a wrong result.",
        "Read the message and the log that it names, and run the benchmark again.",
    )
    INVALID_USAGE = (
        "invalid-usage",
        "A command was called with an unknown option, without a required argument, or with a value that it does not "
        "accept.",
        "Correct the call; `./millrace COMMAND --help` lists the arguments and options.",
    )
    COMMAND_INTERRUPTED = (
        "command-interrupted",
        "Ctrl-C, a signal or a declined question ended the command before it was done.",
        "Run the command again when you want its result.",
    )
    PERMISSION_DENIED = (
        "permission-denied",
        "The operating system does not let your user read or write a file.",
        "Change the file's owner or permissions.",
    )
    PATH_NOT_WRITABLE = (
        "path-not-writable",
        "A directory cannot be created or written: its permissions forbid it, its file system is read-only, or a part "
        "of its path is a file.",
        "Make it writable, or choose another directory with `MILLRACE_HOME`.",
    )
    DISK_FULL = (
        "disk-full",
        "A disk has no space left, or less than the command needs.",
        "Free some space, or move the home to another disk with `MILLRACE_HOME`.",
    )
    DATABASE_ERROR = (
        "database-error",
        "PostgreSQL rejected a statement or closed the connection.",
        "Run `./millrace doctor`. `MILLRACE_DEBUG=1` shows the traceback of the command.",
    )
    PLATFORM_DOWN = (
        "platform-down",
        "The command needs a running platform, and the platform of this home is down or was never started.",
        "Run `./millrace up` first.",
    )
    COMPONENT_FAILED = (
        "component-failed",
        "A component of the platform does not start.",
        "Read its log with `./millrace logs COMPONENT`, fix the cause, and run `./millrace up` again.",
    )
    COMPONENT_UNREACHABLE = (
        "component-unreachable",
        "A component of the platform does not answer at its address.",
        "Run `./millrace status`, and read the log of the component with `./millrace logs COMPONENT`.",
    )
    MIGRATION_FAILED = (
        "migration-failed",
        "The databases could not be migrated to the schema of this release. The data is unchanged: each migration is "
        "one transaction.",
        "Read `./millrace logs migrate`, fix the cause, and run `./millrace up` again.",
    )
    INVALID_PORT = (
        "invalid-port",
        "A variable `MILLRACE_PORT_…` does not hold a port number.",
        "Set it to a number from 1 to 65535, or unset it to let Millrace choose a free port.",
    )
    PORT_IN_USE = (
        "port-in-use",
        "Another program listens on the port that a variable `MILLRACE_PORT_…` sets.",
        "End the other program, set another port, or unset the variable to let Millrace choose a free port.",
    )
    INVALID_HOME_PATH = (
        "invalid-home-path",
        "The path of the home has a character that the settings of Java or Kafka cannot express.",
        "Choose another directory with `MILLRACE_HOME`.",
    )
    ROOT_UNSUPPORTED = (
        "root-unsupported",
        "PostgreSQL refuses to run as root, and root cannot start it as another user on this machine.",
        "Run `./millrace` as an ordinary user, or install util-linux.",
    )
    PYTHON_MISSING = (
        "python-missing",
        "No Python 3.11 or newer was found on the `PATH`.",
        "Install Python 3.11 or newer, or name one: `MILLRACE_PYTHON=/path/to/python3 ./millrace`.",
    )
    INSTALLATION_FAILED = (
        "installation-failed",
        "Millrace's Python packages or Kafka could not be installed.",
        "Fix the cause that the lines above the message show, often the network or the package index of your pip "
        "settings, and run the command again.",
    )
    DOWNLOAD_FAILED = (
        "download-failed",
        "A file of Kafka could not be downloaded.",
        "Check the network, or name your own repository in jgo's settings file, and run the command again.",
    )
    CHECKSUM_MISMATCH = (
        "checksum-mismatch",
        "A downloaded file does not have the checksum that the lock file lists: the download was cut off, or the "
        "repository serves another file.",
        "Run the command again. If the error returns, do not use that repository.",
    )
    AIRFLOW_UNREACHABLE = (
        "airflow-unreachable",
        "Airflow's API does not answer.",
        "Start the platform with `./millrace up`; `./millrace status` shows the state of the api-server.",
    )
    AIRFLOW_REQUEST_FAILED = (
        "airflow-request-failed",
        "Airflow's API rejected a request, or failed while it handled one.",
        "Correct what the message names. After an error of the server itself, run `./millrace doctor`.",
    )
    DAG_MISSING = (
        "dag-missing",
        "Airflow does not list a DAG: its definition is broken, or the dag-processor is not running.",
        "Run `./millrace check`, and read `./millrace logs dag-processor`.",
    )
    RUN_TIMEOUT = (
        "run-timeout",
        "A DAG run did not finish in time.",
        "Look at the run in Airflow's UI, or run `./millrace doctor`.",
    )
    DEMO_FAILED = (
        "demo-failed",
        "The demo finished, but a training run failed, or a stream has offsets without a disposition.",
        "Run `./millrace doctor`.",
    )
    FILE_EXISTS = (
        "file-exists",
        "The file that the command would write exists already.",
        "Name another file, or delete the existing one.",
    )
    BACKUP_INSIDE_HOME = (
        "backup-inside-home",
        "A backup would be written into the home, which `./millrace reset` deletes.",
        "Name a file in another directory.",
    )
    NOTHING_TO_BACK_UP = (
        "nothing-to-back-up",
        "The home holds no data: its platform was never started.",
        "Start the platform with `./millrace up`.",
    )
    BACKUP_FAILED = (
        "backup-failed",
        "A program of PostgreSQL could not copy a database. No backup was written.",
        "Fix the cause that the message names; `./millrace doctor` checks the platform.",
    )
    BACKUP_CORRUPT = (
        "backup-corrupt",
        "The file is not a backup of Millrace, or is not as it was written: it is cut off or altered.",
        "Copy it again from where it was written, or name another backup.",
    )
    BACKUP_INCOMPATIBLE = (
        "backup-incompatible",
        "The backup is intact, but cannot be restored here: a newer release, another major version of PostgreSQL or "
        "another kind of machine wrote it.",
        "Restore it with the release that the message names, on a machine of the same kind.",
    )
    BACKUP_NEEDS_WAREHOUSE = (
        "backup-needs-warehouse",
        "The backup holds the warehouse of a PostgreSQL server of your own, and no such server is named.",
        "Set `MILLRACE_CONN_POSTGRES` to an empty database.",
    )
    RESTORE_FAILED = (
        "restore-failed",
        "The warehouse on your own PostgreSQL server could not be restored. Nothing was changed.",
        "Fix the cause that the message names, and repeat the restore.",
    )
    RESTORE_INTERRUPTED = (
        "restore-interrupted",
        "A restore ended before it was done: the home holds data of two platforms.",
        "Repeat the restore, or delete everything with `./millrace reset`.",
    )
    PROCESS_KILLED = (
        "process-killed",
        "A signal ended a process of Millrace: a user or the system killed it, often for lack of memory.",
        "Give the machine more memory, or lower the limit of what runs at the same time. The task is retried.",
    )
    SCHEMA_NOT_MIGRATED = (
        "schema-not-migrated",
        "The code was updated, and the warehouse's schema was not.",
        "Run ./millrace up, which migrates it and starts Airflow with the new code. With your own Airflow, migrate it "
        "as docs/platform.md says.",
    )
    SCHEMA_OUTDATED = (
        "schema-outdated",
        "The warehouse's schema is that of a Millrace that is too old for a direct upgrade.",
        "Start the warehouse once with the Millrace version that the message names, then with this one.",
    )
    SCHEMA_TOO_NEW = (
        "schema-too-new",
        "The warehouse's schema is that of a newer Millrace.",
        "Use that version, or restore a backup that this version made.",
    )


_HEAD = """# Errors

Every error of Millrace ends with a code in brackets:

    millrace: The file data/orders.csv does not exist. Put it there, or correct the path. [file-not-found]

The sentence names the values of your case; this page says what the code means in general. Codes are stable, sentences
are not: match on the code in scripts and alerts. In Airflow the code is in the log of the task that failed.

This page is written by `./millrace python -m include.error_codes`.
"""


def markdown() -> str:
    """The page: every code in alphabetical order, with its meaning and its remedy."""
    parts = [f"## {code}\n\n{code.meaning}\n\n**What to do.** {code.remedy}\n" for code in sorted(Code)]
    return "\n".join([_HEAD, *parts])


if __name__ == "__main__":
    print(markdown(), end="")
