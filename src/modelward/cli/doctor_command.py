"""``modelward doctor``: what is right and wrong with this installation."""

from __future__ import annotations

from modelward.cli.options import Options
from modelward.cli.output import emit, facts, say, status

BROKEN = 2


def doctor(options: Options) -> int:
    """Check the installation; every problem comes with its fix.

    Exit code 2 when something does not work.
    """
    import dataclasses

    from rich.text import Text

    from modelward.cli.doctor import checks
    from modelward.cli.output import clean

    found = list(checks())
    failed = sum(check.status == "fail" for check in found)
    warned = sum(check.status == "warn" for check in found)
    if options.as_json:
        emit("doctor", {"checks": [dataclasses.asdict(check) for check in found], "failed": failed, "warned": warned})
        return BROKEN if failed else 0
    lines = []
    for check in found:
        words = status(check.status) + Text("  " + clean(check.text), style="")
        words.no_wrap = False
        lines.append((check.name, words))
        if check.fix:
            lines.append(("", Text("→ " + clean(check.fix), style="bold" if check.status != "ok" else "dim")))
    facts(lines, indent=0)
    say()
    if failed or warned:
        say(f"{failed} failed, {warned} to look at", style="bold red" if failed else "bold yellow")
    else:
        say("all is well", style="bold green")
    return BROKEN if failed else 0
