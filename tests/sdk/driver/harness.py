"""What a case works with: clients of one SDK on one cluster, listeners that are waited for, checks that tell."""

import collections
import itertools
import os
import random
import socket
import subprocess
import time

from client import Client, Gone, SdkError

Key = collections.namedtuple("Key", "data_id group")


class Broken(Exception):
    """A promise was broken; the text says which and how."""


def check(held, message):
    if not held:
        raise Broken(message)


def equal(found, wanted, what):
    if found != wanted:
        raise Broken(f"{what}: {short(found)}, wanted {short(wanted)}")


def short(value):
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:120]}... ({len(text):,} characters)"


class Run:
    """One case of one SDK. Keys are of this run alone, so that cases can share a cluster."""

    _numbers = itertools.count(1)

    def __init__(self, name, sdk, cluster, process, patience, seed):
        self.name = name
        self.sdk = sdk
        self.cluster = cluster
        self.process = process
        # For machines that are slow or busy; 1 on a machine that is neither.
        self.patience = patience
        self.random = random.Random(f"{seed} {sdk.name} {name}")
        self.notes = []
        self.heard = []
        self.clients = []
        self.others = []

    def node(self, number):
        return self.cluster.nodes[number % len(self.cluster.nodes)]

    def key(self, prefix=""):
        return Key(f"{prefix}{self.name}-{next(self._numbers)}", f"G_{self.sdk.name}")

    def client(self, name, node=0, namespace="", servers=None):
        client = Seat(self, f"{self.name}-{name}")
        client.connect(servers or [self.node(node).address], namespace)
        self.clients.append(client)
        return client

    def folder(self, name):
        """For a process of the case's own."""
        return os.path.join(self.cluster.scratch, "..", f"{self.name}-{name}-{next(self._numbers)}")

    def another(self, name):
        """Another process of the same SDK: one that can be killed."""
        scratch = self.folder(name)
        process = Client(self.sdk.command(scratch), scratch)
        self.others.append(process)
        return process

    def settle(self, *clients, keys=0):
        """Until listeners that were just added have reached the server.

        No SDK says when that is. Most ask at once; some look at a timer of 5 s, and Go forgets a notification that
        comes while it handles the answer to a listen call: among thousands of keys that is a matter of time, so
        there the time is given (`bulk`). Few keys are cheaper to warm up by a first change.
        """
        bulk = self.sdk.quirks.get("bulk", 0) + keys / 1000 if keys else 0
        time.sleep(0.5 + bulk * self.patience)

    def fill(self, keys, content):
        for key in keys:
            self.cluster.publish(key.data_id, key.group, content)

    def seat(self, client, process=None):
        """The node that the client is connected to; the one with most connections when it is several."""
        found = collections.Counter()
        ports = {}
        for node in self.cluster.nodes:
            ports[node.http] = ports[node.grpc] = node
        for port in (process or self.process).ports():
            if port in ports:
                found[ports[port].number] += 1
        check(found, "the client is connected to no node")
        return self.cluster.nodes[found.most_common(1)[0][0] - 1]

    def own_addresses(self):
        """Every address under which this machine's SDKs may say that they run."""
        found = {"127.0.0.1"}
        try:
            found.update(subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split())
        except (OSError, subprocess.CalledProcessError):
            pass
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                # Nothing is sent; the kernel says which address it would use.
                probe.connect(("192.0.2.1", 9))
                found.add(probe.getsockname()[0])
            except OSError:
                pass
        return sorted(address for address in found if ":" not in address)

    def note(self, text):
        self.notes.append(text)

    def said(self, error):
        """What an SDK said where saying no is an answer; told when the case fails all the same."""
        self.heard.append(str(error)[:200])

    def close(self):
        """All at once: Python takes up to 5 s for each."""
        for process in self.others:
            process.kill()
            process.close()
        if self.process is None:
            return
        try:
            calls = [self.process.begin("close", client=client.name) for client in self.clients]
        except Gone:
            return
        for call in calls:
            try:
                self.process.finish(call)
            except (SdkError, Gone):
                pass


class Seat:
    """A client object within the SDK's process, with the calls of the line protocol as methods."""

    def __init__(self, run, name):
        self.run = run
        self.name = name
        self.process = run.process

    def connect(self, servers, namespace):
        self.process.call("connect", 60, client=self.name, servers=servers, namespace=namespace, timeoutMs=10000)

    def begin(self, op, key, **fields):
        return self.process.begin(op, client=self.name, dataId=key.data_id, group=key.group, timeoutMs=10000, **fields)

    def finish(self, call, within=30):
        return self.process.finish(call, within * self.run.patience)

    def call(self, op, key, within=30, **fields):
        return self.finish(self.begin(op, key, **fields), within)

    def get(self, key, within=30):
        return self.call("get", key, within)

    def publish(self, key, content, within=30):
        return self.call("publish", key, within, content=content, type="text")

    def remove(self, key):
        return self.call("remove", key)

    def begin_cas(self, key, content, md5):
        return self.begin("cas", key, content=content, md5=md5, type="text")

    def eventually(self, key, wanted, within=5):
        """Reads until the content is the wanted one; other nodes may be some milliseconds behind. Returns the last."""
        deadline = time.monotonic() + within * self.run.patience
        while True:
            found = self.get(key, within=60)
            if found == wanted or time.monotonic() > deadline:
                return found
            time.sleep(0.05)

    def listen(self, key, op="listen"):
        listener = Listener(self, f"{self.name}/{key.data_id}")
        self.call(op, key, listener=listener.name)
        return listener

    def listen_all(self, keys, known):
        listeners, calls = [], []
        for key in keys:
            listener = Listener(self, f"{self.name}/{key.data_id}")
            listeners.append(listener)
            calls.append(self.begin("listen", key, listener=listener.name, known=known.get(key)))
        for call in calls:
            self.finish(call, 120)
        return listeners


class Listener:
    def __init__(self, seat, name):
        self.seat = seat
        self.name = name

    def told(self, content, within=10):
        """Waits for a change to this content (None: to none); seconds that it took. Broken when it does not come."""
        began = time.monotonic()
        if self.wait(lambda event: (event["content"] or None) == content, within) is None:
            raise Broken(f"listener {self.name} was not told {short(content)} within {within * self.seat.run.patience:.0f} s, "
                         f"only {[short(text) for text in self.contents()[-5:]]}")
        return time.monotonic() - began

    def wait(self, wanted, within=10):
        within *= self.seat.run.patience
        return self.seat.process.wait_event(
            lambda event: event.get("listener") == self.name and wanted(event), within)

    def events(self):
        return self.seat.process.events(self.name)

    def contents(self):
        return [event["content"] for event in self.events()]
