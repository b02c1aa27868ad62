"""The history of the schema can be read from the names of its files."""

from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

from include.warehouse import migrations


def script() -> ScriptDirectory:
    configuration = Config()
    configuration.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return ScriptDirectory.from_config(configuration)


def test_there_is_one_head_and_no_branch() -> None:
    assert len(script().get_heads()) == 1
    assert not [each.revision for each in script().walk_revisions() if each.is_branch_point or each.is_merge_point]


def test_files_sort_in_the_order_of_the_history() -> None:
    history = [each.revision for each in script().walk_revisions()]
    assert migrations.revisions() == history[::-1]
    assert [Path(each.path).stem for each in script().walk_revisions()] == history
