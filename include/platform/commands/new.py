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
