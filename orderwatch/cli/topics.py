"""``orderwatch topics``."""

from typing import Annotated

import typer

from orderwatch.support.terminal import CONFIG, AsJson, ConfigPath, say, say_json, show

app = typer.Typer(no_args_is_help=True, help="The topics of this configuration.")


@app.callback()
def _topics() -> None:
    """Without it Typer would make the only command the group itself."""


@app.command("apply")
def apply(
    config: ConfigPath = CONFIG,
    fix: Annotated[bool, typer.Option("--fix", help="Also set retention and cleanup where they differ.")] = False,
    grow: Annotated[
        bool, typer.Option("--grow", help="Also add partitions; moves keys, so drain the topics first.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create the missing topics and say what differs; a second run changes nothing. 1 when something still differs."""
    from orderwatch.support.session import configured
    from streams.kafka.producer import apply_topics
    from streams.topics import every

    settings = configured(config)
    wanted = every(settings)
    found = apply_topics(settings.kafka, wanted, fix=fix, grow=grow)
    if as_json:
        say_json({"topics": [spec.name for spec in wanted], "differences": [item._asdict() for item in found]})
    else:
        show(
            ("topic", "what", "found", "wanted", "applied", "note"),
            found,
            empty=f"{len(wanted)} topics, all as they should be",
        )
        made = sum(item.applied for item in found)
        if found:
            say(f"{len(wanted)} topics, {made} changes made, {len(found) - made} differences left")
    raise typer.Exit(0 if all(item.applied for item in found) else 1)
