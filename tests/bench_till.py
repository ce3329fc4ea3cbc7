"""`make bench-till`: one till daemon alone, by process accounting: CPU when idle, memory over many scans, and how long
from the last byte of a scan to the verdict that the scanner is made to sound.

The gateway is the tests' scripted one, in this process: it decides at once, so that what is measured is the till. A
scan is sent when the one before was ACKed, as an SSI scanner does.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil
from scanner_wire import ssi_scan
from scripted_gateway import ScriptedGateway
from scripted_scanners import ACK, SsiScanner
from till_bench import PtyScanner, TillBench

PARAM_SEND, BEEP = 0xC6, 0xE6
SCANNERS = 3  # a busy counter; the others are silent, as most are most of the time
VERDICTS = 300
CODE = b"T1%030d"  # as long as a signed code
IDLE_CPU_MAX, GROWTH_MIB_MAX = 0.02, 4.0
WINDOW = 64  # scans in the air while memory is watched: the till's queue holds four times as many


async def main(idle_s: float, scans: int) -> int:
    with tempfile.TemporaryDirectory(prefix="tillgate-bench-") as name, TillBench(Path(name)) as till:
        async with ScriptedGateway(till.public_key) as gateway:
            others = [PtyScanner(Path(name) / f"lane{number}") for number in range(2, SCANNERS + 1)]
            till.configure(gateway.url, framing="ssi")
            blocks = (f'[[scanners]]\nname = "{one.path.name}"\npath = "{one.path}"\n' for one in others)
            till.config.write_text(till.config.read_text() + "".join(blocks))
            till.start()
            await till.until_shown("connected to the gateway")
            assert till.daemon
            daemon = psutil.Process(till.daemon.pid)
            scanner = SsiScanner(till.scanner)
            await scanner.until_heard(PARAM_SEND, 2)
            idle = await idle_share(daemon, idle_s)
            print(f"idle, {SCANNERS} scanners, {idle_s:.0f} s: {idle:.2%} of one core (at most {IDLE_CPU_MAX:.0%})")
            await verdict_times(scanner)
            growth = await memory(daemon, gateway, till, scans)
            assert till.stop() == 0
            for one in others:
                one.close()
    return int(idle > IDLE_CPU_MAX or growth > GROWTH_MIB_MAX)


def cpu_s(daemon: psutil.Process) -> float:
    times = daemon.cpu_times()
    return float(times.user + times.system)


async def idle_share(daemon: psutil.Process, idle_s: float) -> float:
    began_s, began_cpu_s = time.monotonic(), cpu_s(daemon)
    await asyncio.sleep(idle_s)
    return (cpu_s(daemon) - began_cpu_s) / (time.monotonic() - began_s)


async def verdict_times(scanner: SsiScanner) -> None:
    """Last byte written to first byte of the ACK, and of the beep."""
    acks, beeps = list[float](), list[float]()
    for number in range(VERDICTS):
        sent_s = time.perf_counter()
        scanner.send(CODE % number)
        await scanner.until_heard(ACK, number + 1)
        acks.append((time.perf_counter() - sent_s) * 1000)
        await scanner.until_heard(BEEP, number + 1)
        beeps.append((time.perf_counter() - sent_s) * 1000)
    for what, times in (("in the journal (ACK)", acks), ("verdict sounded (BEEP)", beeps)):
        cuts = statistics.quantiles(times, n=100)
        print(
            f"scan to {what}, {VERDICTS} scans: p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms, most {max(times):.1f} ms"
        )


async def memory(daemon: psutil.Process, gateway: ScriptedGateway, till: TillBench, scans: int) -> float:
    """MiB that the daemon grew by from three tenths of the scans on: before, its history fills up to its bound."""
    taken, began_s, began_cpu_s = 0, time.monotonic(), cpu_s(daemon)
    settled_mib = 0.0
    print("scans      resident MiB")
    while taken < scans:
        gateway.messages.clear()
        gateway.winners.clear()
        gateway.answered.clear()
        for number in range(taken, taken + WINDOW):
            till.scanner.write(ssi_scan(CODE % (VERDICTS + number))[0])
        await gateway.until(lambda: len(gateway.scans) >= WINDOW)
        till.scanner.read()
        taken += WINDOW
        if taken % (scans // 10) < WINDOW:
            resident = daemon.memory_info().rss / 2**20
            settled_mib = settled_mib or (resident if taken >= scans * 3 // 10 else 0.0)
            print(f"{taken:>7,}    {resident:6.1f}")
    took_s = time.monotonic() - began_s
    growth = daemon.memory_info().rss / 2**20 - settled_mib
    each_us = (cpu_s(daemon) - began_cpu_s) / taken * 1e6
    print(f"{taken:,} scans in {took_s:.0f} s, {each_us:.0f} us of CPU each; grew by {growth:.1f} MiB", end=" ")
    print(f"from three tenths on (at most {GROWTH_MIB_MAX:.0f})")
    return growth


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--idle-seconds", type=float, default=20.0)
    parser.add_argument("--scans", type=int, default=100_000)
    arguments = parser.parse_args()
    sys.exit(asyncio.run(main(arguments.idle_seconds, arguments.scans)))
