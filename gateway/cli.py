"""The command `tillgate`: which subcommands there are, each loaded when it is used, and what the process exits with."""

import os
import sys

import click

from gateway.cli_lazy import LazyGroup
from gateway.cli_output import EXIT_FAILED, EXIT_INTERRUPTED, Fault, say

COMMANDS = {  # name -> where it is, and its line in `tillgate --help`; nothing is imported before it is used
    "demo": ("gateway.demo:command", "Play a small campaign on this machine and prove its result."),
    "init": ("gateway.cli_setup:init", "Create a data directory: keys, log and the first admin token."),
    "serve": ("gateway.cli_serve:serve", "Run the gateway."),
    "terminal": ("gateway.cli_terminal:terminal", "Run a store's terminal; offer, enrol and revoke terminals."),
    "merchant": ("gateway.cli_campaign:merchant", "Add and list merchants, the parties that are paid."),
    "store": ("gateway.cli_campaign:store", "Open and list stores."),
    "alliance": ("gateway.cli_campaign:alliance", "Define and list alliances of merchants."),
    "campaign": ("gateway.cli_campaign:campaign", "Create, show, pause, resume, close and purge campaigns."),
    "voucher": ("gateway.cli_voucher:voucher", "Issue, import, show and void vouchers."),
    "exposure": ("gateway.cli_exposure:exposure", "Print what may be lost by accepting vouchers offline."),
    "token": ("gateway.cli_setup:token", "Create, revoke and list the tokens of people and programs."),
    "key": ("gateway.cli_setup:key", "Add, retire, list and back up the keys that sign codes."),
    "log": ("gateway.cli_log:log", "Read, verify and export the event log."),
    "backup": ("gateway.cli_backup:backup", "Copy the event log to another file, or bring a copy up to date."),
    "restore": ("gateway.cli_backup:restore", "Make a data directory from backups of the log and the keys."),
    "rebuild": ("gateway.cli_rebuild:rebuild", "Rebuild Valkey's state from the event log."),
    "config": ("gateway.cli_config:config", "Show, check and explain the gateway's settings."),
    "top": ("gateway.cli_top:top", "Watch what the gateways do, live."),
    "doctor": ("gateway.cli_doctor:doctor", "Check configuration, files, disk, Valkey and clock."),
    "api": ("gateway.cli_api:api", "Print the documents of the HTTP API and of the tills' stream."),
    "slo": ("gateway.cli_ops:slo", "Make Prometheus rules of what is promised."),
    "load": ("gateway.cli_load:load", "Load a gateway as a festival would, and say what came of it."),
    "bench": ("loadtest.bench:command", "Measure this machine."),
}
OURS = ("gateway", "devices", "eventstore", "loadtest")
EPILOG = """\b
Results go to stdout, messages to stderr; --json prints results as JSON.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a check found a difference,
4 the gateway cannot be reached, 130 interrupted.
"""


@click.group(cls=LazyGroup, table=COMMANDS, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tillgate", message="tillgate %(version)s")
def tillgate() -> None:
    """Redeem vouchers at store tills, each of them once, and prove it."""


def run(args: list[str]) -> int:
    """Carry out one command line; returns the exit code."""
    try:
        outcome = tillgate.main(args, prog_name="tillgate", standalone_mode=False)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except (Fault, click.ClickException) as fault:
        fault.show()
        return fault.exit_code
    except (click.Abort, KeyboardInterrupt):
        say("interrupted")
        return EXIT_INTERRUPTED
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in OURS:
            raise  # a fault of ours, not of the installation
        extra = next((name for name in ("terminal", "load") if args[:1] == [name]), "gateway")
        say(f"error: this needs the package {error.name}: install tillgate[{extra}]")
        return EXIT_FAILED
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        if error.strerror is None:
            raise
        say("error: " + (f"{error.filename}: " if error.filename else "") + error.strerror)
        return EXIT_FAILED
    return outcome if isinstance(outcome, int) else 0


def main() -> None:
    """Entry point of the installed command."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
