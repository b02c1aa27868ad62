"""new dataset and new stream."""

import click


@click.group()
def new() -> None:
    """Write a dataset or stream definition for you to edit."""


@new.command()
@click.argument("name")
def stream(name: str) -> None:
    """Write include/streams/NAME.py, a stream that works at once."""
    from include.streams.new import write

    file = write(name)
    click.echo(f"{file} is there. Edit it, then: ./millrace check, ./millrace produce {name}")
    click.echo(f"Its DAG is land__{name}; its table will be landing.{name}.")


@new.command()
@click.argument("name")
@click.option("--from", "source", required=True, metavar="FILE", help="A CSV or Parquet file.")
@click.option("--target", help="The column to predict; asked for when left out.")
def dataset(name: str, source: str, target: str | None) -> None:
    """Write include/datasets/NAME.py, a dataset that publishes and trains at once."""
    from pathlib import Path

    from include.datasets import new as datasets

    if target is None:
        rows = datasets.read(Path(source))
        click.echo(f"{source} has the columns {', '.join(rows.column_names)}.")
        target = click.prompt("Which one is to be predicted?", default=datasets.likely_target(rows))
    file = datasets.write(name, Path(source), target)
    click.echo(f"{file} is there. Edit it, then: ./millrace check, ./millrace publish {name}")
