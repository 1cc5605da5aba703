"""nacos-sdk-python 0.1.x (threads, HTTP) behind the line protocol of tests/sdk (README.md there)."""

import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import classic_naming
import nacos

SCRATCH = os.getcwd()
clients = {}
registries = set()
lock = threading.Lock()


def say(line):
    with lock:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def connect(command):
    client = nacos.NacosClient(
        ",".join(command["servers"]),
        namespace=command.get("namespace", ""),
        logDir=os.path.join(SCRATCH, "log"),
    )
    # A cached value in place of the server's would hide what the tests look for.
    client.set_options(no_snapshot=True, default_timeout=command.get("timeoutMs", 5000) / 1000)
    # It is read even with no_snapshot, and lies beside other processes' otherwise.
    client.snapshot_base = os.path.join(SCRATCH, "snapshot", command["client"])
    client.failover_base = os.path.join(SCRATCH, "failover", command["client"])
    clients[command["client"]] = client
    if command.get("domain") == "naming":
        registries.add(command["client"])
    return True


def listener_of(name):
    def told(change):
        say({"event": "change", "listener": name, "content": change["content"]})

    return told


def run(command):
    op = command["op"]
    if op == "connect":
        return connect(command)
    client = clients[command["client"]]
    if op == "close":
        clients.pop(command["client"]).stop_subscribe()
        return True
    if command["client"] in registries:
        return classic_naming.run(client, command, say)
    data_id, group = command["dataId"], command["group"]
    if op == "listen":
        # With the content given the SDK does not ask for each key first (3,000 requests).
        client.add_config_watcher(data_id, group, listener_of(command["listener"]), command.get("known"))
        return True
    if op == "get":
        return client.get_config(data_id, group)
    if op == "publish":
        return client.publish_config(data_id, group, command["content"], config_type=command.get("type"))
    if op == "remove":
        return bool(client.remove_config(data_id, group))
    raise ValueError("unsupported: " + op)


def answer(command):
    try:
        say({"id": command["id"], "ok": run(command)})
    except Exception as error:  # noqa: BLE001: whatever it is, the driver is told
        say({"id": command["id"], "error": type(error).__name__ + ": " + str(error)})


def lines():
    """Not sys.stdin: the SDK forks a manager, which would wait for the lock that a blocked reader holds."""
    kept = b""
    while piece := os.read(0, 1 << 16):
        *whole, kept = (kept + piece).split(b"\n")
        yield from whole


def main():
    say({"event": "ready", "sdk": "nacos-sdk-python " + version("nacos-sdk-python")})
    workers = ThreadPoolExecutor(8)
    for line in lines():
        command = json.loads(line)
        if command["op"] == "quit":
            break
        workers.submit(answer, command)
    # Its pulling threads and manager process would not let go.
    for child in __import__("multiprocessing").active_children():
        child.terminate()
    os._exit(0)


if __name__ == "__main__":
    main()
