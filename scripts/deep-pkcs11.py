#!/usr/bin/env python3
"""Runs the complete list of pkcs11-check on hsm-sim and on SoftHSM and compares them case by case.

Fails when hsm-sim crashes, when it passes no more cases than SoftHSM, when a case that it fails has no
explanation in docs/hsm-sim.md, and when an explanation there explains nothing any more.
Called by scripts/deep pkcs11. The last line is the result as JSON.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

VERSION = "0.2.3"
OLDEST_PYTHON = (3, 12)
USER_PIN, SO_PIN, LABEL = "123456", "12345678", "deep"
HEADER = "| case of pkcs11-check | why hsm-sim does not pass it |"
UNFINISHED = ["crashed", "child_crash", "crash_limited", "timeout", "child_timeout", "error", "incomplete"]
# A case that was run more than once has the worst of its outcomes.
OUTCOMES = ["passed", "skipped", "xfailed", "failed", "crashed"]


def run(command, environment=None, **options):
    subprocess.run([str(part) for part in command], env={**os.environ, **(environment or {})}, check=True, **options)


def checker(place):
    """The program, installed from PyPI into an environment of its own."""
    program = place / "bin" / "pkcs11-check"
    if not program.exists():
        run([sys.executable, "-m", "venv", place])
        run([place / "bin" / "pip", "install", "--quiet", f"pkcs11-check=={VERSION}"])
    return program


def make_token(module, environment):
    tool = ["pkcs11-tool", "--module", module]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    run([*tool, "--init-token", "--slot-index", "0", "--label", LABEL, "--so-pin", SO_PIN], environment, **quiet)
    as_officer = ["--token-label", LABEL, "--login", "--login-type", "so", "--so-pin", SO_PIN]
    run([*tool, *as_officer, "--init-pin", "--pin", USER_PIN], environment, **quiet)


# First what leaves the token as it was, then, on another token, the rest.
PARTS = {"kept": [], "destructive": ["--destructive", "--marker", "destructive"]}


def start(program, module, directory, more):
    tokens = directory / "tokens"
    tokens.mkdir(parents=True)
    configuration = directory / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\n")
    environment = {"HSM_SIM_DIR": str(tokens), "SOFTHSM2_CONF": str(configuration)}
    make_token(module, environment)
    pins = {"P11TEST_PIN": USER_PIN, "P11TEST_SO_PIN": SO_PIN}
    command = [program, "test", "--module", module, "--slot", "0", "--ignore-disabled-tests", *more]
    command += ["--output", "json", "--output-file", directory / "results.json"]
    with open(directory / "log", "w") as log:
        return subprocess.Popen(
            [str(part) for part in command],
            cwd=directory,
            env={**os.environ, **environment, **pins},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def outcome(report):
    if report["outcome"] == "skipped" and report.get("wasxfail") is not None:
        return "xfailed"
    return report["outcome"]


def cases(directory):
    """What became of each case, by its name below the list's own folder."""
    found, calls = {}, collections.Counter()
    with open(directory / "report.jsonl") as lines:
        for report in map(json.loads, lines):
            if report.get("$report_type") != "TestReport" or report["when"] == "teardown":
                continue
            name = report["nodeid"].split("/testcases/")[-1]
            if report["when"] == "setup":
                calls[name] += 1
                if report["outcome"] == "passed":
                    continue
            calls[name] -= 1
            found[name] = max(found.get(name, "passed"), outcome(report), key=OUTCOMES.index)
    # A case that was set up and of which nothing more was heard took its process with it.
    found.update({name: "crashed" for name, open_calls in calls.items() if open_calls > 0})
    return found


def explanations(document):
    """The patterns of the table in the document; an asterisk stands for anything."""
    rows = document.read_text().split(HEADER, 1)[1].splitlines()[2:]
    patterns = []
    for row in rows:
        if not row.startswith("|"):
            break
        patterns.append(row.split("|")[1].strip().strip("`"))
    return patterns


def fits(pattern, name):
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None


def main():
    if sys.version_info < OLDEST_PYTHON:
        sys.exit("scripts/deep pkcs11: pkcs11-check needs Python 3.12 or newer")
    parser = argparse.ArgumentParser()
    parser.add_argument("--hsm-sim", type=pathlib.Path, required=True)
    parser.add_argument("--softhsm", type=pathlib.Path, required=True)
    parser.add_argument("--environment", type=pathlib.Path, required=True, help="where to install pkcs11-check")
    parser.add_argument("--document", type=pathlib.Path, required=True)
    options = parser.parse_args()
    if not options.softhsm.exists():
        sys.exit(f"scripts/deep pkcs11: no SoftHSM at {options.softhsm}; it is in the package softhsm2")

    program = checker(options.environment.absolute())
    with tempfile.TemporaryDirectory(prefix="pkcs11-check-") as place:
        place = pathlib.Path(place)
        modules = {"hsm-sim": options.hsm_sim.absolute(), "SoftHSM": options.softhsm}
        outcomes = {name: {} for name in modules}
        summaries = {name: [] for name in modules}
        for part, more in PARTS.items():
            directories = {name: place / name / part for name in modules}
            runs = [start(program, modules[name], directories[name], more) for name in modules]
            while any(process.poll() is None for process in runs):
                time.sleep(1)
            for name, directory in directories.items():
                if not (directory / "results.json").exists():
                    sys.exit(f"{name}: pkcs11-check gave no result:\n" + (directory / "log").read_text()[-2000:])
                outcomes[name].update(cases(directory))
                summaries[name].append(json.loads((directory / "results.json").read_text())["summary"])

    totals = {name: collections.Counter(found.values()) for name, found in outcomes.items()}
    print(f"{'':10}" + "".join(f"{name:>10}" for name in totals))
    for kind in OUTCOMES:
        print(f"{kind:10}" + "".join(f"{total[kind]:10}" for total in totals.values()))
    ours, theirs = outcomes["hsm-sim"], outcomes["SoftHSM"]
    beside = collections.Counter((ours.get(name, "absent"), theirs.get(name, "absent")) for name in ours | theirs)
    print("\nhsm-sim    SoftHSM    cases")
    for (our, their), count in beside.most_common():
        print(f"{our:10} {their:10} {count:5}")

    failed = sorted(name for name, kind in ours.items() if kind in ("failed", "crashed"))
    patterns = explanations(options.document)
    unexplained = [name for name in failed if not any(fits(pattern, name) for pattern in patterns)]
    idle = [pattern for pattern in patterns if not any(fits(pattern, name) for name in failed)]
    print(f"\nhsm-sim fails {len(failed)}:")
    for name in failed:
        print(f"  {name} (SoftHSM: {theirs.get(name, 'absent')})")

    complaints = [f"not explained in {options.document}: {name}" for name in unexplained]
    complaints += [f"explained in {options.document} and does not fail: {pattern}" for pattern in idle]
    for summary in summaries["hsm-sim"]:
        if any(summary[kind] for kind in UNFINISHED):
            complaints.append(f"hsm-sim crashed or did not finish: {summary}")
    if totals["hsm-sim"]["passed"] <= totals["SoftHSM"]["passed"]:
        complaints.append("hsm-sim passes no more cases than SoftHSM")
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    if complaints:
        sys.exit(1)
    result = {
        "pkcs11_check": VERSION,
        "totals": totals,
        "hsm_sim_beside_softhsm": {f"{our}, {their}": count for (our, their), count in beside.most_common()},
        "failed_on_hsm_sim": failed,
        "failed_or_crashed_on_softhsm": sorted(name for name, kind in theirs.items() if kind in ("failed", "crashed")),
    }
    print("DEEP-RESULT " + json.dumps(result))


main()
