"""Runs real SDKs against the server; README.md tells how."""

import argparse
import concurrent.futures
import itertools
import os
import shutil
import sys
import tempfile
import threading
import time
import traceback

import apps
import broken
import cases_apps
import cases_config
import cases_naming
import cases_naming_faults
import sdks
from client import Client, Gone, SdkError
from cluster import Cluster
from harness import Broken, Run

ROOT = os.path.dirname(os.path.dirname(sdks.HERE))
PARTS = ("fast", "full", "long")
DOMAINS = {"config": cases_config.CASES, "naming": cases_naming.CASES + cases_naming_faults.CASES, "app": cases_apps.CASES}
CASES = [case for cases in DOMAINS.values() for case in cases]
ALL = sdks.ALL + apps.ALL
_printing = threading.Lock()


def arguments():
    parser = argparse.ArgumentParser(prog="tests/sdk/run", description=__doc__)
    parser.add_argument("--server", default=os.path.join(ROOT, "target", "release", "rnacos"), help="the binary under test")
    parser.add_argument("--only", help="SDKs and applications, comma separated: " + ",".join(sdk.name for sdk in ALL))
    parser.add_argument("--case", help="cases, comma separated: " + ",".join(name for name, *_ in CASES))
    parser.add_argument("--domain", choices=DOMAINS, help="the cases of one domain; all if not given")
    parser.add_argument("--part", choices=PARTS, default="full", help="fast: CI's; long: adds 10,000 listened keys")
    parser.add_argument("--nodes", type=int, choices=(1, 3), default=None, help="one node or three; both if not given")
    parser.add_argument("--jobs", type=int, default=2, help="SDKs that run at the same time, each with servers of its own")
    parser.add_argument("--patience", type=float, default=1.0, help="factor for deadlines on a slow machine")
    parser.add_argument("--seed", type=int, default=1, help="which keys and contents are chosen")
    parser.add_argument("--keep", help="folder for logs and data of servers and clients; kept when a case fails")
    parser.add_argument("--build", default=os.path.join(ROOT, "target", "sdk"), help="where SDKs are downloaded and built to")
    parser.add_argument("--build-within", type=float, metavar="SECONDS", help="what takes longer to download and build is "
                        "skipped; each SDK has so long")
    parser.add_argument("--prepare", action="store_true", help="download and build only")
    parser.add_argument("--broken", nargs="?", const="all", metavar="BUG", help="against a server that is wrong on purpose "
                        "(built with the feature seeded-bugs): every case named for the bug must fail; all bugs, or, comma "
                        "separated, "
                        + ", ".join(broken.BROKEN))
    parser.add_argument("--need", action="store_true", help="an SDK that must be skipped is a failure")
    return parser.parse_args()


def main():
    options = arguments()
    chosen = choose(options.only, {sdk.name: sdk for sdk in ALL})
    cases = choose(options.case, {case[0]: case for case in CASES})
    if options.domain:
        cases = [case for case in cases if case in DOMAINS[options.domain]]
    if not options.case:
        cases = [case for case in cases if PARTS.index(case[2]) <= PARTS.index(options.part)]
    # Clients are started in folders of their own.
    options.build = os.path.abspath(options.build)
    os.makedirs(options.build, exist_ok=True)
    ready, skipped, unbuilt = prepare(chosen, options)
    if options.prepare:
        return bool(unbuilt) or (bool(skipped) and options.need)
    options.server = os.path.abspath(options.server)
    if not os.access(options.server, os.X_OK):
        sys.exit(f"no server at {options.server}: cargo build --release, or --server PATH")
    scratch = options.keep or tempfile.mkdtemp(prefix="rnacos-sdk-")
    os.makedirs(scratch, exist_ok=True)
    counts = [options.nodes] if options.nodes else [1, 3]
    work = [(sdk, count) for count in counts for sdk in ready]
    if options.broken:
        return prove(ready, cases, scratch, options)
    results = {}
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for (sdk, count), cells in zip(work, pool.map(lambda one: run_sdk(*one, cases, scratch, options), work)):
            results[sdk.name, count] = cells
    failed = report(ready, skipped, counts, cases, results, scratch)
    if not failed and not options.keep:
        shutil.rmtree(scratch, ignore_errors=True)
    return failed or bool(unbuilt) or (bool(skipped) and options.need)


def prove(ready, cases, scratch, options):
    """Runs the cases of each seeded bug. One that holds all the same has not looked: that is the failure here."""
    bugs = choose(options.broken if options.broken != "all" else None, {bug: bug for bug in broken.BROKEN})
    counts = [options.nodes] if options.nodes else [1, 3]
    work = []
    for bug in bugs:
        for sdk, count in itertools.product(ready, counts):
            chosen = [case for case in meant(sdk, cases) if case[0] in broken.BROKEN[bug] and (case[3] or 1) == count
                      and not broken.gets_through(bug, case[0], sdk)]
            if chosen:
                work.append((sdk, count, chosen, os.path.join(scratch, bug), options, bug))
    blind, shown = [], {}
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for one, cells in zip(work, pool.map(lambda one: run_sdk(*one), work)):
            sdk, count, chosen, _, _, bug = one
            for case in chosen:
                mark = cells.get(case[0], ("not reached",))[0]
                shown[bug, case[0], sdk.name] = mark
                if mark not in ("caught", "-"):
                    blind.append(f"{bug}: {case[0]} of {sdk.name} on {count}: {mark}")
    print(f"\n{'bug':17} {'case':10} " + " ".join(f"{sdk.name:>7}" for sdk in ready))
    for bug, name in dict.fromkeys(key[:2] for key in shown):
        print(f"{bug:17} {name:10} " + " ".join(f"{shown.get((bug, name, sdk.name), ''):>7}" for sdk in ready))
    for line in blind:
        print(f"NOT CAUGHT {line}")
    print(f"{len(work)} runs, logs: {scratch}")
    return bool(blind)


def choose(names, known):
    if not names:
        return list(known.values())
    wrong = [name for name in names.split(",") if name not in known]
    if wrong:
        sys.exit(f"unknown: {', '.join(wrong)}; there are {', '.join(known)}")
    return [known[name] for name in names.split(",")]


def prepare(chosen, options):
    ready, skipped, unbuilt = [], [], []
    for sdk in chosen:
        try:
            sdk.prepare(options.build, options.build_within)
            ready.append(sdk)
        except sdks.Skipped as reason:
            skipped.append(sdk)
            say(f"{sdk.name:8} SKIPPED {reason}")
        except sdks.Unbuildable as reason:
            unbuilt.append(sdk)
            say(f"{sdk.name:8} FAILED {reason}")
    return ready, skipped, unbuilt


def run_sdk(sdk, count, cases, scratch, options, bug=None):
    """Every case of one SDK on a cluster of its own; a cell of the report for each."""
    scratch = os.path.join(scratch, f"{sdk.name}-{count}")
    cells, cluster, process = {}, None, None
    try:
        cluster = Cluster(options.server, os.path.join(scratch, "servers"), count, {"SEEDED_BUG": bug} if bug else None)
        for name, case, _, nodes in meant(sdk, cases):
            if nodes not in (0, count):
                cells[name] = (" ", 0, "")
                continue
            if name in sdk.cannot:
                cells[name] = ("-", 0, sdk.cannot[name])
                continue
            if sdk.stands and (process is None or process.process.poll() is not None):
                process = Client(sdk.command(scratch), scratch)
            cells[name] = run_case(name, case, sdk, cluster, process, options)
            if bug and cells[name][0] == "FAILED":
                cells[name] = ("caught", *cells[name][1:])
            mark, seconds, text = cells[name]
            say(f"{sdk.name:8} {count} {name:10} {mark:6} {seconds:6.1f} s  {text}")
            if process and (mark != "ok" or nodes):
                # A client that was shaken, or that waits for something, is not the next case's.
                process.close()
                process = None
    except Exception as error:  # the table must come out, whatever broke
        say(f"{sdk.name:8} {count} {'(setup)':10} FAILED          {error}")
        cells["(setup)"] = ("FAILED", 0, str(error))
        traceback.print_exc()
    finally:
        if process:
            process.close()
        if cluster:
            cluster.close()
    return cells


def meant(sdk, cases):
    """Those of the cases that are about such an SDK or application."""
    return [case for case in cases if any(case in DOMAINS[domain] for domain in sdk.domains)]


def run_case(name, case, sdk, cluster, process, options):
    run = Run(name, sdk, cluster, process, options.patience, options.seed)
    began = time.monotonic()
    try:
        case(run)
        mark, text = "ok", "; ".join(run.notes)
    except Broken as error:
        mark, text = "FAILED", str(error)
    except (SdkError, Gone, RuntimeError) as error:
        mark, text = "ERROR", f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - began
    run.close()
    return mark, seconds, text


def report(ready, skipped, counts, cases, results, scratch):
    failures = []
    for count, (domain, known) in itertools.product(counts, DOMAINS.items()):
        shown = [case[0] for case in known if case in cases and case[3] in (0, count)]
        rows = [sdk for sdk in ready if domain in sdk.domains]
        if not shown or not rows:
            continue
        print(f"\n{domain}, {count} node{'s' if count > 1 else ''}, seconds per case (- : there is no such thing)")
        print("                 " + " ".join(f"{name:>10}" for name in shown))
        for sdk in rows:
            cells = results[sdk.name, count]
            row = []
            for name in shown:
                mark, seconds, text = cells.get(name, ("?", 0, "not reached"))
                row.append(f"{seconds:.1f}" if mark == "ok" else mark)
                if mark not in ("ok", "-"):
                    failures.append((sdk, count, name, text))
            print(f"{sdk.name:7} {sdk.version[:8]:8} " + " ".join(f"{cell:>10}" for cell in row))
    for sdk in skipped:
        print(f"{sdk.name:7} {sdk.version[:8]:8} SKIPPED")
    for sdk, count, name, text in failures:
        print(f"FAILED: {sdk.name} on {count}: {name}: {text}\n       bash tests/sdk/run --only {sdk.name} --nodes {count} --case {name}")
    if failures:
        print(f"logs: {scratch}")
    return bool(failures)


def say(text):
    with _printing:
        print(text, flush=True)


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
