"""A service of one page for the supervisor's tests: prints READY, then does what its arguments say.

python service_script.py NAME [--chatter] [--fail CODE] [--slow-end SECONDS] [--deaf] [--log FILE]
"""

import argparse
import json
import os
import signal
import sys
import threading
import time


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--chatter", action="store_true")
    parser.add_argument("--fail", type=int)
    parser.add_argument("--slow-end", type=float, default=0.0)
    parser.add_argument("--deaf", action="store_true")
    parser.add_argument("--log")
    args = parser.parse_args()
    ended = threading.Event()
    received: list[str] = []

    def arrived(number: int, _: object) -> None:
        received.append(signal.Signals(number).name)
        if not args.deaf:
            ended.set()

    signal.signal(signal.SIGTERM, arrived)
    signal.signal(signal.SIGINT, arrived)
    if args.chatter:
        print("loading, please wait")
        print(json.dumps({"progress": 0.5}))
    if args.fail is not None:
        sys.exit(args.fail)
    print(json.dumps({"service": args.name, "address": f"127.0.0.1:{os.getpid()}"}), flush=True)
    if args.chatter:
        print("no newline at the end", end="", flush=True)
    while not ended.wait(0.05):
        pass
    time.sleep(args.slow_end)
    if args.log:
        with open(args.log, "a", encoding="utf-8") as log:
            log.write(f"{args.name} {','.join(received)}\n")


if __name__ == "__main__":
    main()
