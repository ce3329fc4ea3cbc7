"""`tillgate doctor`: every check, a line each."""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from gateway.cli_output import EXIT_DIFFERENT, Fault, print_checks, prints_results
from gateway.cli_session import loaded, own_certificate, served_url, takes_data

if TYPE_CHECKING:
    from gateway.config import Loaded
    from gateway.doctor import Finding


@click.command()
@takes_data
@prints_results
def doctor(data_dir: str | None, as_json: bool) -> int:
    """Check configuration, files, log, disk, Valkey and clock; exit code 3 if something is wrong. Changes nothing.

    \b
    tillgate doctor --data /var/lib/tillgate
    """
    try:
        configured = loaded(data_dir)
    except Fault as fault:
        print_checks([{"check": "configuration", "state": "fail", "text": str(fault), "fix": ""}], as_json)
        return EXIT_DIFFERENT
    found = asyncio.run(_look(configured))
    print_checks([msgspec.to_builtins(finding) for finding in found], as_json)
    return EXIT_DIFFERENT if any(finding.state == "fail" for finding in found) else 0


async def _look(configured: "Loaded") -> "list[Finding]":
    from gateway import doctor, doctor_servers
    from gateway.client import Client

    directory = Path(configured.config.data_dir)
    findings = [doctor.configuration(configured)]
    looked = await doctor.log_tail(configured.config)
    findings += looked.findings
    findings.append(await doctor.snapshot(configured.config, time.time_ns() // 1_000_000))
    if await asyncio.to_thread(directory.is_dir):
        findings += doctor.permissions(directory)
        findings += doctor.secrets(directory, looked.directory.live_keys if looked.directory else set())
        findings += [await asyncio.to_thread(doctor.disk_sync, directory), doctor.free_space(directory)]
    async with AsyncExitStack() as stack:
        url, client = await served_url(configured.config, directory), None
        if url is not None:
            client = await stack.enter_async_context(Client(url, tls=own_certificate(configured.config)))
        findings.append(await doctor_servers.gateway(client))
        if client is None:
            findings += doctor.ports(configured.config)
        findings += await doctor_servers.valkey(
            configured, directory, gateway_runs=client is not None, partitions=looked.partitions
        )
    now_ms = time.time_ns() // 1_000_000
    return [*findings, *doctor.clock(looked.newest_ms, now_ms), doctor.open_files(), doctor.versions()]
