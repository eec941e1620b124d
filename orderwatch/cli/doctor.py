"""``orderwatch doctor``."""

import typer

from orderwatch.support.terminal import CONFIG, AsJson, ConfigPath, say, say_json, show


def register(app: typer.Typer) -> None:
    """Add the command to the root app."""
    app.command("doctor")(doctor)


def doctor(config: ConfigPath = CONFIG, as_json: AsJson = False) -> None:
    """Look at every part and say what is wrong and what helps. 1 when something fails."""
    from orderwatch.support.doctor import examine

    found = list(examine(config))
    failed = sum(item.verdict == "fail" for item in found)
    if as_json:
        say_json({"findings": [item._asdict() for item in found], "failed": failed})
    else:
        show(("check", "verdict", "finding", "remedy"), ((*item[:3], item.remedy or None) for item in found), empty="")
        say(f"{len(found)} checks, {sum(item.verdict == 'warn' for item in found)} warnings, {failed} failures")
    raise typer.Exit(1 if failed else 0)
