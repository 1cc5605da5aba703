"""Cases of the configuration, written once for every SDK. A case gets a `Run` and raises when a promise is broken."""

import hashlib
import random
import string
import threading
import time

from client import SdkError
from harness import Broken, Listener, check, equal


def basics(run):
    """Publish, read, overwrite, remove; absent before and after."""
    a, key = run.client("a"), run.key()
    equal(a.get(key), None, "a config that was never published")
    check(a.publish(key, "one"), "publish said no")
    equal(a.get(key), "one", "read after publish")
    check(a.publish(key, "two"), "the second publish said no")
    equal(a.get(key), "two", "read after the second publish")
    check(a.remove(key), "remove said no")
    equal(a.get(key), None, "read after remove")
    check(a.remove(key), "removing what is not there said no")


def unicode(run):
    """Text of every kind comes back as it went, under its own md5, and listeners are told once."""
    a, b, key = run.client("a"), run.client("b"), run.key()
    for number, content in enumerate((
        "line one\r\nline two\n\ttabbed \\ \"quoted\" 'single' <xml/> & a=b%20c+d",
        "äöüß € 汉字 かな עברית русский",
        "😀 👩‍👩‍👧 𝔘 \u2028 e\u0301",
        " leading and trailing spaces, trailing newline \n",
    )):
        check(a.publish(key, content), "publish said no")
        equal(a.get(key), content, f"text {number}")
        equal(b.eventually(key, content), content, f"text {number} read by another client")
        status, body, headers = run.node(0).request("GET", "/v1/cs/configs", dataId=key.data_id, group=key.group)
        equal(status, 200, "read over HTTP")
        headers = {name.lower(): value for name, value in headers.items()}
        if "content-md5" in headers:
            equal(headers["content-md5"], md5(content), "Content-MD5")
    listener = b.listen(key)
    run.settle(b)
    last = "settled 😀\r\n汉字"
    check(a.publish(key, last), "publish said no")
    listener.told(last)
    time.sleep(2)
    equal(listener.contents().count(last), 1, "how often a listener was told of one change")


def size(bytes_):
    def case(run):
        a, b, key = run.client("a"), run.client("b"), run.key()
        alphabet = string.ascii_letters + string.digits + " \n"
        content = "".join(run.random.choices(alphabet, k=bytes_)) + "€"
        check(a.publish(key, content, within=60), "publish said no")
        found = b.eventually(key, content)
        equal(md5(found or ""), md5(content), f"md5 of {bytes_:,} bytes")
    case.__doc__ = f"A content of {bytes_:,} bytes goes in and comes out."
    return case


def listen(run):
    """A change is told; one of another key is not; with three nodes writer and listener sit on different ones."""
    a, b, key, other = run.client("a", 0), run.client("b", 1), run.key(), run.key()
    a.publish(key, "before")
    a.publish(other, "other")
    listener = b.listen(key)
    run.settle(b)
    for number in range(3):
        content = f"change {number}"
        a.publish(other, f"other {number}")
        check(a.publish(key, content), "publish said no")
        run.note(f"{listener.told(content) * 1000:.0f} ms")
    check(all(not text or not text.startswith("other") for text in listener.contents()), "told of a key it did not ask for")


def created(run):
    """A listener of a config that does not exist yet is told when it comes."""
    a, b, key = run.client("a", 0), run.client("b", 1), run.key()
    listener = b.listen(key)
    # With the time of a timer: a listen call after the birth would find it without being told.
    run.settle(b, keys=1)
    # Java 1.4 takes some seconds to begin its second poll.
    time.sleep(8 if run.sdk.http else 1.5)
    a.publish(key, "born")
    listener.told("born")


def between(run):
    """A config that changes while its listener is being added: what the listener has in the end is the last content."""
    a, b = run.client("a", 0), run.client("b", 1)
    keys = [run.key() for _ in range(30)]
    run.fill(keys, "old")
    for key in keys:
        b.eventually(key, "old")
    calls = []
    for key in keys:
        listener = Listener(b, f"{b.name}/{key.data_id}")
        # Both are under way at a time, so the change comes before the read, between it and the listen, or after both.
        calls.append((key, listener, b.begin("listen", key, listener=listener.name, known="old"),
                      a.begin("publish", key, content="new", type="text")))
    for _, _, listening, publishing in calls:
        b.finish(listening)
        check(a.finish(publishing), "publish said no")
    # An SDK that polls asks for new keys when the poll under way ends.
    deadline = time.monotonic() + (40 if run.sdk.http else 15) * run.patience
    told = 0
    for key, listener, *_ in calls:
        left = max(0.1, deadline - time.monotonic()) / run.patience
        if "first" in run.sdk.quirks:
            # It tells no first content, which may be the new one, and reads what it listens to from memory.
            equal(b.eventually(key, "new", within=left), "new", f"what the listener of {key.data_id} has")
            told += "new" in listener.contents()
        else:
            listener.told("new", within=left)
            told += 1
    run.note(f"{told} told")


def held(run):
    """An operator asks any node what the client holds of a config: content and md5 come from the client itself."""
    a, b, key = run.client("a", 0), run.client("b", 0), run.key()
    a.publish(key, "before")
    listener = b.listen(key)
    run.settle(b)
    a.publish(key, "what it holds")
    listener.told("what it holds")
    # Whatever address it says that it has; whichever node is asked.
    wanted, last, deadline = f"what it holds:{md5('what it holds')}", None, time.monotonic() + 10 * run.patience
    while time.monotonic() < deadline:
        for ip in run.own_addresses():
            last = run.node(2).request("GET", "/v1/cs/metrics/cluster", within=10, ip=ip, dataId=key.data_id, group=key.group)
            if last[0] == 200 and wanted in last[1]:
                return
        time.sleep(0.2)
    raise Broken(f"no client says that it holds {wanted!r}, only {str(last[:2])[:600]}")


def burst(run):
    """Of fifty publishes in a row the last one is told."""
    a, b, key = run.client("a", 0), run.client("b", 1), run.key()
    a.publish(key, "start")
    listener = b.listen(key)
    run.settle(b)
    # Now it is known to listen: some SDKs tell the server only seconds later, and would hear the last one anyway.
    a.publish(key, "warm")
    listener.told("warm")
    for number in range(50):
        check(a.publish(key, f"burst {number}"), "publish said no")
    listener.told("burst 49")
    time.sleep(1)
    equal(listener.contents()[-1], "burst 49", "the last that the listener heard")
    numbers = [int(text.split()[1]) for text in listener.contents() if text and text.startswith("burst")]
    equal(numbers, sorted(numbers), "the order in which changes were told")
    run.note(f"{len(numbers)} told")


def removal(run):
    """A removed config is told as having no content, and is told again when it comes back."""
    a, b, key = run.client("a", 0), run.client("b", 1), run.key()
    a.publish(key, "here")
    listener = b.listen(key)
    run.settle(b)
    a.publish(key, "still here")
    listener.told("still here")
    check(a.remove(key), "remove said no")
    equal(a.eventually(key, None), None, "read after remove")
    if "removal" in run.sdk.quirks:
        run.note("this SDK does not tell the removal itself")
    else:
        listener.told(None)
    a.publish(key, "back")
    listener.told("back")


def cas(run):
    """Of eight racers with one md5 exactly one wins; a stale md5 changes nothing."""
    key = run.key()
    racers = [run.client(f"racer{number}", number) for number in range(8)]
    current = "start"
    racers[0].publish(key, current)
    for lap in range(3):
        for racer in racers:
            racer.eventually(key, current)
        calls = [
            (racer, f"lap {lap} racer {number}", racer.begin_cas(key, f"lap {lap} racer {number}", md5(current)))
            for number, racer in enumerate(racers)
        ]
        winners = []
        for racer, content, call in calls:
            try:
                if racer.finish(call):
                    winners.append(content)
            except SdkError as error:
                run.said(error)
        equal(len(winners), 1, f"winners of lap {lap}: {winners}; losers were told {run.heard[-1:]}")
        equal(racers[0].eventually(key, winners[0]), winners[0], "content after the race")
        current = winners[0]
    try:
        check(not racers[1].finish(racers[1].begin_cas(key, "stale", md5("start"))), "a stale md5 won")
    except SdkError as error:
        run.said(error)
    equal(racers[0].get(key), current, "content after a stale compare-and-set")
    check(racers[2].finish(racers[2].begin_cas(key, "right", md5(current))), "the right md5 lost")


def namespaces(run):
    """"" and "public" are one namespace for every call; a namespace of its own is apart."""
    for lap, spellings in enumerate((("", "public"), ("public", ""))):
        # New clients for each lap: those that poll ask for new keys only once the poll under way has ended.
        writer, reader = (run.client(f"{spelling or 'empty'}{lap}", namespace=spelling) for spelling in spellings)
        own, key = run.client(f"own{lap}", namespace="sdk-own"), run.key()
        check(writer.publish(key, "first"), "publish said no")
        equal(reader.eventually(key, "first"), "first", "read with the other spelling")
        equal(own.get(key), None, "read from another namespace")
        own.publish(key, "mine")
        listeners = [reader.listen(key), writer.listen(key), own.listen(key)]
        run.settle(reader, writer, own)
        writer.publish(key, "second")
        listeners[0].told("second")
        listeners[1].told("second")
        own.publish(key, "mine too")
        listeners[2].told("mine too")
        check("second" not in listeners[2].contents(), "told across namespaces")
        time.sleep(2)
        for listener in listeners[:2]:
            equal(listener.contents().count("second"), 1, "how often a listener was told of one change")
        # Java 3 says "public" for both, so a colleague writes with each spelling too.
        for tenant in (None, "public"):
            run.cluster.publish(key.data_id, key.group, f"by tenant {tenant}", tenant=tenant)
            for listener in listeners[:2]:
                listener.told(f"by tenant {tenant}")
        check(reader.remove(key), "remove with the other spelling said no")
        # A client that listens may answer from memory (Rust); one that does not must ask.
        fresh = run.client(f"fresh{lap}", namespace=spellings[0])
        equal(fresh.eventually(key, None), None, "read after a remove with the other spelling")
        equal(own.get(key), "mine too", "a removal across namespaces")


def beta(run):
    """A beta content is served to the addresses named and to nobody else; the formal one stays."""
    a, b, key = run.client("a"), run.client("b"), run.key()
    a.publish(key, "formal")
    check(a.call("beta", key, content="for others", ips="192.0.2.77"), "publishing a beta said no")
    time.sleep(1)
    equal(b.get(key), "formal", "what an address outside of the beta reads")
    listener = b.listen(key)
    run.settle(b)
    check(a.call("beta", key, content="for me", ips=",".join(run.own_addresses())), "publishing a beta said no")
    listener.told("for me")
    equal(b.get(key), "for me", "what an address of the beta reads")


def tag(run):
    """A tag's content does not touch the formal one and is there for those who ask for the tag."""
    a, key = run.client("a"), run.key()
    a.publish(key, "formal")
    check(a.call("tag", key, content="tagged", tag="blue"), "publishing a tag said no")
    time.sleep(1)
    equal(a.get(key), "formal", "what a client without the tag reads")
    where = {"dataId": key.data_id, "group": key.group}
    equal(run.node(0).request("GET", "/v1/cs/configs", tag="blue", **where)[:2], (200, "tagged"), "read with the tag")


def fuzzy(run):
    """A fuzzy watch is told of what is there, what comes and what goes, and of nothing else."""
    a, b = run.client("a", 0), run.client("b", 1)
    there = [run.key("fuzzy-yes-") for _ in range(3)]
    for key in there:
        a.publish(key, "x")
    a.publish(run.key("fuzzy-no-"), "x")
    for key in there:
        b.eventually(key, "x")
    pattern = run.key("fuzzy-yes-*")._replace(data_id=f"fuzzy-yes-{run.name}*")
    listener = b.listen(pattern, op="fuzzy")

    def told(key, change):
        event = listener.wait(lambda event: (event["dataId"], event["change"]) == (key.data_id, change))
        check(event, f"not told {change} of {key.data_id}: {listener.events()}")

    for key in there:
        told(key, "ADD_CONFIG")
    late = run.key("fuzzy-yes-")
    a.publish(late, "x")
    told(late, "ADD_CONFIG")
    a.remove(late)
    told(late, "DELETE_CONFIG")
    check(all(event["dataId"].startswith("fuzzy-yes-") for event in listener.events()), "told of what does not match")


def many(count):
    def case(run):
        a, b = run.client("a", 0), run.client("b", 1)
        wanted = count - 1 if "full task" in run.sdk.quirks else count
        keys = [run.key(f"many{number}-") for number in range(wanted)]
        # Every tenth exists: both kinds of entry are compared, and writing stays the smaller part of the case.
        run.fill(keys[::10], "old")
        began = time.monotonic()
        listeners = b.listen_all(keys, {key: "old" for key in keys[::10]})
        run.settle(b, keys=wanted)
        # Rust tells no first content, so there only what exists can be told twice.
        among = range(0, wanted, 10) if "first" in run.sdk.quirks else range(wanted)
        chosen = sorted({*run.random.sample(among, 30), among[0], among[-1]})
        # Shorter than a long poll (29.5 s), which compares at its end.
        within = 10 + count / 300
        # Twice: what the first lap brings may be found by a comparison, the second is told. A poll begins with one,
        # so the next one is given time to begin.
        for lap in range(2):
            time.sleep(2 * run.patience if lap and run.sdk.http else 0)
            for index in chosen:
                check(a.publish(keys[index], f"new {lap} {index}"), "publish said no")
            for index in chosen:
                listeners[index].told(f"new {lap} {index}", within)
        wrong = [index for index, listener in enumerate(listeners) if index not in chosen
                 and any(text and text != "old" for text in listener.contents())]
        equal(wrong, [], "keys that were told of a change they did not have")
        run.note(f"listening and told after {time.monotonic() - began:.1f} s")
    case.__doc__ = f"{count:,} listened keys: a change of any one is told, and of no other."
    return case


def kill(run):
    """kill -9 of the node that the client sits on: within 10 s it is told of the next change, on another node."""
    key = run.key()
    run.cluster.publish(key.data_id, key.group, "before")
    client = run.client("a", servers=run.cluster.addresses)
    listener = client.listen(key)
    run.settle(client)
    run.cluster.publish(key.data_id, key.group, "change 0")
    listener.told("change 0")
    victim = run.seat(client)
    victim.kill()
    killed = time.monotonic()
    try:
        run.cluster.publish(key.data_id, key.group, "after the kill")
        written = time.monotonic()
        listener.told("after the kill", within=run.sdk.back(10))
        run.note(f"write {written - killed:.1f} s, told {time.monotonic() - killed:.1f} s after the kill of node {victim.number}")
        equal(client.eventually(key, "after the kill"), "after the kill", "read after the kill")
        check(client.publish(key, "by the client", within=30), "publish after the kill said no")
        listener.told("by the client")
    finally:
        victim.start()
        run.cluster.wait_ready()
    run.cluster.publish(key.data_id, key.group, "healed")
    listener.told("healed", within=run.sdk.back(10))


def stop(run):
    """A graceful stop ends with code 0 and moves its clients at once: the next change is told within 5 s."""
    key = run.key()
    run.cluster.publish(key.data_id, key.group, "before")
    client = run.client("a", servers=run.cluster.addresses)
    listener = client.listen(key)
    run.settle(client)
    run.cluster.publish(key.data_id, key.group, "change 0")
    listener.told("change 0")
    victim = run.seat(client)
    try:
        code = victim.stop()
        equal(code, 0, "exit code of a node that was told to stop")
        stopped = time.monotonic()
        run.cluster.publish(key.data_id, key.group, "after the stop")
        listener.told("after the stop", within=run.sdk.back(5))
        run.note(f"told {time.monotonic() - stopped:.1f} s after the stop of node {victim.number}")
        # By now nothing is left to compare: this one must be told.
        time.sleep(2)
        run.cluster.publish(key.data_id, key.group, "settled")
        listener.told("settled")
    finally:
        victim.start()
        run.cluster.wait_ready()


def rolling(run):
    """Three nodes restarted in turn under writes: every acknowledged write stays, the listener has the last one."""
    key = run.key()
    writer, reader = (run.client(name, servers=run.cluster.addresses) for name in ("writer", "reader"))
    check(writer.publish(key, "count 0"), "publish said no")
    listener = reader.listen(key)
    run.settle(reader)
    check(writer.publish(key, "warm"), "publish said no")
    listener.told("warm")
    state = {"acknowledged": 0, "unknown": [], "refused": 0}
    over = threading.Event()

    def write():
        number = 0
        while not over.is_set():
            number += 1
            try:
                if writer.publish(key, f"count {number}", within=60):
                    state["acknowledged"], state["unknown"] = number, []
                    continue
            except SdkError as error:
                run.said(error)
            state["refused"] += 1
            state["unknown"].append(number)
            time.sleep(0.05)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for node in run.cluster.nodes:
            before = state["acknowledged"]
            equal(node.stop(), 0, f"exit code of node {node.number}")
            node.start()
            run.cluster.wait_ready()
            deadline = time.monotonic() + 20 * run.patience
            while state["acknowledged"] <= before + 5:
                check(time.monotonic() < deadline, f"no writes after the restart of node {node.number}: {run.heard[-3:]}")
                time.sleep(0.05)
    finally:
        over.set()
        thread.join()
    wake(reader, key)
    check(writer.publish(key, "the end"), "publish after the restarts said no")
    listener.told("the end", within=run.sdk.back(10))
    numbers = [int(text.split()[1]) for text in listener.contents() if text and text.startswith("count")]
    equal(numbers, sorted(numbers), "the order in which changes were told")
    run.note(f"{state['acknowledged']} writes, {state['refused']} refused, {len(numbers)} told")


def restart(run):
    """One node stopped, then killed, and started again: the client finds back, the listener too."""
    client, key, node = run.client("a"), run.key(), run.node(0)
    check(client.publish(key, "before"), "publish said no")
    listener = client.listen(key)
    run.settle(client)
    check(client.publish(key, "warm"), "publish said no")
    listener.told("warm")
    for number, end in enumerate((node.stop, node.kill)):
        end()
        node.start()
        run.cluster.wait_ready()
        wake(client, key)
        content = f"after restart {number}"
        run.cluster.publish(key.data_id, key.group, content)
        back = time.monotonic()
        listener.told(content, within=run.sdk.back(15))
        run.note(f"told {time.monotonic() - back:.1f} s after it serves again")
        equal(client.eventually(key, content), content, "read after the restart")
        check(client.publish(key, f"by the client {number}", within=30), "publish after the restart said no")
        listener.told(f"by the client {number}")


def wake(client, key):
    """A read, for an SDK that takes a restarted server for the one it knew until a request of its own is refused."""
    if "deaf" in client.run.sdk.quirks:
        time.sleep(1)
        client.get(key)


def md5(text):
    return hashlib.md5(text.encode()).hexdigest()


# Name, case, part of the run that has it (`fast` is in every run), nodes it needs (0: any).
CASES = [
    ("basics", basics, "fast", 0),
    ("unicode", unicode, "fast", 0),
    ("200k", size(200_000), "fast", 0),
    ("1m", size(1 << 20), "fast", 0),
    ("9m", size(9 << 20), "full", 0),
    ("listen", listen, "fast", 0),
    ("created", created, "full", 0),
    ("between", between, "full", 0),
    ("burst", burst, "fast", 0),
    ("removal", removal, "fast", 0),
    ("cas", cas, "fast", 0),
    ("namespaces", namespaces, "fast", 0),
    ("beta", beta, "full", 0),
    ("tag", tag, "full", 0),
    ("fuzzy", fuzzy, "fast", 0),
    ("held", held, "full", 0),
    ("3000", many(3_000), "full", 0),
    ("10000", many(10_000), "long", 0),
    ("restart", restart, "full", 1),
    ("stop", stop, "full", 3),
    ("kill", kill, "full", 3),
    ("rolling", rolling, "full", 3),
]
