"""`swarm doctor` and `swarm find`: how the node's connections are, and where a peer is."""

from __future__ import annotations

import argparse
from typing import Final

from node.cli.daemon import client, params
from node.cli.text import line, print_json
from protocol import methods, rpc
from protocol.errors import EXIT_ANSWER, EXIT_LIMITED, EXIT_NO_PEERS, EXIT_TROUBLE

_MARKS: Final = {"ok": "✓", "note": "·", "warn": "!", "trouble": "✗"}
_EXITS: Final = {"warn": EXIT_LIMITED, "trouble": EXIT_TROUBLE}


def run(args: argparse.Namespace) -> int:
    """Print the findings; the exit code tells the worst of them."""
    result = client(args).call("doctor")
    report = rpc.convert(result, methods.Doctor)
    code = _EXITS.get(report.health, EXIT_ANSWER)
    if args.json:
        print_json(result)
        return code
    for finding in report.findings:
        print(f"{_MARKS.get(finding.level, '?')} {finding.about:<10}{line(finding.text)}")
        if finding.cause:
            print(f"{'':12}{line(finding.cause)}")
        if finding.next:
            print(f"{'':12}→ {line(finding.next)}")
    for name, how in sorted(report.services.items()):
        print(f"· {name:<10}{line(how)}")
    for address in report.addresses:
        print(f"· {'address':<10}{line(address)}")
    if report.refused:
        counts = ", ".join(f"{what} {count}" for what, count in sorted(report.refused.items()))
        print(f"· {'refused':<10}{line(counts)}")
    return code


def find(args: argparse.Namespace) -> int:
    """Print where a peer says that it is; exit code 6 if it is nowhere to be found."""
    wanted = params(methods.FindParams, {"peer": args.peer, "dht": args.dht})
    result = client(args).call("find", wanted, silence_s=60.0)
    found = rpc.convert(result, methods.Found)
    code = EXIT_NO_PEERS if found.via == "nowhere" else EXIT_ANSWER
    if args.json:
        print_json(result)
        return code
    if found.via == "nowhere":
        print(f"{line(args.peer)} is nowhere to be found: nobody knows a statement of it.")
        return code
    relays = ", relays for others" if found.relay else ""
    print(f"known through {found.via}, swarm {line(found.swarm)}, NAT {found.nat}{relays}")
    for address in found.addresses:
        print(line(address))
    return code
