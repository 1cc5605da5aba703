"""What a naming case works with: clients that register and subscribe, what they are told, and what each node lists."""

import collections
import json
import threading
import time

from client import SdkError
from harness import Broken, Listener, check, short

Service = collections.namedtuple("Service", "name group")


def registry(run, name, node=0, namespace="", servers=None, process=None):
    """A naming client; `process` puts it into another process than the case's own."""
    client = Registry(run, f"{run.name}-{name}", process or run.process, servers or [run.node(node).address], namespace)
    if process is None:
        run.clients.append(client)
    return client


def service(run, prefix="", group=None):
    key = run.key(prefix)
    return Service(key.data_id, group or key.group)


def instance(number, **more):
    """An instance as the line protocol has it. The network is one that is never routed (RFC 5737)."""
    given = {
        "ip": f"198.51.100.{number}",
        "port": 8000 + number,
        "weight": 1.0,
        "healthy": True,
        "enabled": True,
        "ephemeral": True,
        "cluster": "DEFAULT",
        "metadata": {},
    }
    given.update(more)
    return given


def where(one):
    return f"{one['ip']}:{one['port']}"


def names(hosts):
    return None if hosts is None else sorted(where(one) for one in hosts)


def same(hosts, wanted):
    """Exactly these instances, each once, whatever order; equal in everything that the line protocol says."""
    return hosts is not None and sorted(hosts, key=where) == sorted(wanted, key=where)


class Registry:
    """A naming client within an SDK's process, with the calls of the line protocol as methods."""

    def __init__(self, run, name, process, servers, namespace):
        self.run = run
        self.name = name
        self.process = process
        process.call("connect", 60, client=name, domain="naming", servers=servers, namespace=namespace, timeoutMs=10000)

    def call(self, op, service, within=30, **fields):
        fields = {"clusters": [], **fields}
        return self.process.call(op, within * self.run.patience, client=self.name, service=service.name, group=service.group,
                                 **fields)

    def register(self, service, one):
        check(self.call("register", service, instance=one), "register said no")

    def deregister(self, service, one):
        check(self.call("deregister", service, instance=one), "deregister said no")

    def batch(self, service, all_):
        check(self.call("batch", service, instances=all_), "batch register said no")

    def instances(self, service, *clusters):
        return self.call("instances", service, clusters=list(clusters))

    def select(self, service, *clusters, healthy=True):
        return self.call("select", service, clusters=list(clusters), healthy=healthy)

    def eventually(self, service, wanted, *clusters, within=5, read=None):
        """Reads until the list is the wanted one; other nodes may be some milliseconds behind."""
        read = read or self.instances
        deadline = time.monotonic() + within * self.run.patience
        while True:
            found = read(service, *clusters)
            if same(found, wanted):
                return
            if time.monotonic() > deadline:
                raise Broken(f"{self.name} reads {tell(found, wanted)}")
            time.sleep(0.05)

    def returned(self, act, within=20):
        """Does something until the SDK is connected again: a node is back sooner than its clients. (Some answer a
        query from memory meanwhile.)"""
        deadline = time.monotonic() + within * self.run.patience
        while True:
            try:
                return act()
            except SdkError as error:
                if time.monotonic() > deadline:
                    raise Broken(f"{self.name} is not answered: {error}") from error
                time.sleep(0.2)

    def subscribe(self, service, *clusters):
        watch = Watch(self, f"{self.name}/{service.name}/{','.join(clusters)}")
        self.call("subscribe", service, clusters=list(clusters), listener=watch.name)
        watch.close = lambda: self.call("unsubscribe", service, clusters=list(clusters), listener=watch.name)
        return watch


def tell(found, wanted):
    """What differs: the addresses, or, where those agree, the rest."""
    if names(found) != names(wanted):
        return f"{short(names(found))}, wanted {short(names(wanted))}"
    pairs = zip(sorted(found, key=where), sorted(wanted, key=where))
    return "; ".join(f"{where(one)} {key} {one.get(key)!r}, wanted {other[key]!r}"
                     for one, other in pairs for key in other if one.get(key) != other[key])


class Watch(Listener):
    """A subscription. Every list that it was told is kept, with the time."""

    def lists(self):
        return [(event["at"], event["hosts"]) for event in self.events()]

    def latest(self):
        events = self.events()
        return events[-1]["hosts"] if events else None

    def until(self, wanted, within=10):
        """Waits until the newest list that was told is the wanted one; seconds that it took.

        `wanted`: instances, or a function of the list. What comes before it may be anything: changes are merged.
        """
        accepts = wanted if callable(wanted) else lambda hosts: same(hosts, wanted)
        began = time.monotonic()
        within *= self.seat.run.patience
        if not self.seat.process.wait_for(lambda: self.latest() is not None and accepts(self.latest()), within):
            goal = wanted.__doc__ if callable(wanted) else None
            said = short(names(self.latest())) + f", wanted {goal}" if callable(wanted) else tell(self.latest(), wanted)
            raise Broken(f"subscriber {self.name} within {within:.0f} s was told {said}; "
                         f"{len(self.lists())} lists: {[names(hosts) for _, hosts in self.lists()[-4:]]}")
        return time.monotonic() - began

    def has(self, *addresses):
        """A function for `until`: exactly these addresses."""
        def accepts(hosts):
            return names(hosts) == sorted(addresses)
        accepts.__doc__ = f"{sorted(addresses)}"
        return accepts

    def gaps(self, all_, since):
        """For how long each instance was missing from what was told since then, and how many told lists were empty."""
        return gaps([(at, names(hosts)) for at, hosts in self.lists()], [where(one) for one in all_], since)


def gaps(lists, addresses, since):
    """Longest time that an address was missing from the lists, and the number of empty ones; a list holds until the
    next. The last one before `since` counts, too."""
    before = [entry for entry in lists if entry[0] < since][-1:]
    after = [entry for entry in lists if entry[0] >= since]
    longest, missing = 0, {}
    for at, hosts in before + after:
        for address in addresses:
            if address in hosts:
                longest = max(longest, at - missing.pop(address, at))
            else:
                missing.setdefault(address, at)
    for at in missing.values():
        longest = max(longest, time.monotonic() - at)
    return longest, sum(1 for _, hosts in after if not hosts)


def listed(node, service, namespace=None, clusters=None):
    """What a node answers over HTTP to somebody else: a list as of the line protocol, or None when it does not answer."""
    status, body, _ = node.request("GET", "/v1/ns/instance/list", serviceName=service.name, groupName=service.group,
                                   namespaceId=namespace, clusters=clusters, healthyOnly="false", within=3)
    if status != 200:
        return None
    return [
        {"ip": host["ip"], "port": host["port"], "weight": host["weight"], "healthy": host["healthy"],
         "enabled": host["enabled"], "ephemeral": host["ephemeral"], "cluster": host["clusterName"],
         "metadata": host["metadata"]}
        for host in json.loads(body)["hosts"]
    ]


def everywhere(run, service, wanted, within=10, **more):
    """Waits until every node that runs lists what is wanted: instances, or a function of a list."""
    accepts = wanted if callable(wanted) else lambda hosts: same(hosts, wanted)
    deadline = time.monotonic() + within * run.patience
    began = time.monotonic()
    while True:
        found = {node: listed(node, service, **more) for node in run.cluster.nodes if node.process.poll() is None}
        wrong = {node: hosts for node, hosts in found.items() if hosts is None or not accepts(hosts)}
        if not wrong:
            return time.monotonic() - began
        if time.monotonic() > deadline:
            node, hosts = next(iter(wrong.items()))
            said = "nothing" if hosts is None else short(names(hosts)) if callable(wanted) else tell(hosts, wanted)
            raise Broken(f"{len(wrong)} of {len(found)} nodes wrong after {within * run.patience:.0f} s: "
                         f"node {node.number} lists {said}")
        time.sleep(0.1)


def colleague(node, method, service, one, **more):
    """Registers, changes or removes an instance over HTTP: what somebody else or the console would do. No beats."""
    status, body, _ = node.request(
        method, "/v1/ns/instance", serviceName=service.name, groupName=service.group, ip=one["ip"], port=one["port"],
        weight=one["weight"], enabled=str(one["enabled"]).lower(), ephemeral=str(one["ephemeral"]).lower(),
        clusterName=one["cluster"], metadata=json.dumps(one["metadata"]), **more)
    check((status, body) == (200, "ok"), f"{method} over HTTP said {status} {short(body)}")


class Witness:
    """Reads a service from every node that answers, all the time, as clients that only query do."""

    def __init__(self, run, service):
        self.lists = {node.number: [] for node in run.cluster.nodes}
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._watch, args=(node, service)) for node in run.cluster.nodes]
        for thread in self._threads:
            thread.start()

    def _watch(self, node, service):
        while not self._over.wait(0.1):
            hosts = listed(node, service)
            if hosts is not None:
                self.lists[node.number].append((time.monotonic(), names(hosts)))

    def close(self):
        self._over.set()
        for thread in self._threads:
            thread.join()

    def gaps(self, all_, since):
        """The worst node's: longest time an instance was missing, and how many answers were empty."""
        found = [gaps(lists, [where(one) for one in all_], since) for lists in self.lists.values() if lists]
        return max(longest for longest, _ in found), sum(empty for _, empty in found)
