"""Cases of naming in which clients and nodes die: nobody who lives is lost, nobody who died stays."""

import time

from client import SdkError
from harness import Broken, check, equal
from naming import Witness, everywhere, instance, listed, names, registry, service, where

# For SDKs that beat: when the beats end the instance is unhealthy after 3 s and gone after 6 s, looked at every 5 s.
SOON = {"preserved.heart.beat.interval": "1000", "preserved.heart.beat.timeout": "3000", "preserved.ip.delete.timeout": "6000"}
# The same, unhealthy after 8 s and gone after 12 s: Node beats for all as often as the server told it for one, 5 s at most.
LATER = {"preserved.heart.beat.interval": "4000", "preserved.heart.beat.timeout": "8000", "preserved.ip.delete.timeout": "12000"}
# A client that died with its node is given this long to come back elsewhere (docs: grace).
GRACE = 45
# What is missing for no longer than this was moved, not lost: an SDK's redo comes every 3 s.
MOVING = 5


def mortal(run, number, **more):
    """An instance whose end is seen soon, whichever way its SDK keeps it alive."""
    return instance(number, metadata=SOON if run.sdk.http else {}, **more)


def end(run):
    """Within how many seconds an instance is gone after a kill -9 of its process: connection or beats."""
    return 6 + 5 + 2 if run.sdk.http else 5


def again(run):
    """Within how many seconds a subscriber is told of a change after its connection broke."""
    return run.sdk.quirks.get("again", run.sdk.quirks.get("redo", run.sdk.told))


def wake(run, shop, *registries):
    """A request, for an SDK that takes a restarted server for the one it knew until a request of its own is refused."""
    if "deaf" in run.sdk.quirks:
        time.sleep(1)
        for one in registries:
            try:
                one.call("services", shop, pageNo=1, pageSize=1)
            except SdkError as error:
                run.said(error)


def steady(run, shop, wanted):
    """Listed everywhere, and still so after the first beat of SDKs that begin late with it (Node after 10 s)."""
    everywhere(run, shop, wanted)
    if "late beat" in run.sdk.quirks:
        time.sleep(12)
        everywhere(run, shop, wanted)


def gone(run):
    """kill -9 of the process that registered: its instance is gone soon, everywhere; another one stays all the time."""
    process = run.another("provider")
    victim, stays, shop = registry(run, "victim", 0, process=process), registry(run, "stays", 1), service(run)
    one, two = mortal(run, 1), mortal(run, 2)
    victim.register(shop, one)
    stays.register(shop, two)
    steady(run, shop, [one, two])
    watch = registry(run, "watcher", 2).subscribe(shop)
    if "initial" not in run.sdk.quirks:
        watch.until([one, two], run.sdk.told)
    process.kill()
    killed = time.monotonic()
    everywhere(run, shop, [two], within=end(run))
    run.note(f"gone after {time.monotonic() - killed:.1f} s")
    watch.until([two], run.sdk.told)
    missing, _ = watch.gaps([two], killed)
    equal(missing, 0, "seconds for which a subscriber missed the one that lives")


def owners(run):
    """Two processes own one instance: while one of them lives it is there without a break, then it is gone."""
    processes = [run.another(name) for name in ("first", "second")]
    shop, one, other = service(run), mortal(run, 1), mortal(run, 2)
    for number, process in enumerate(processes):
        registry(run, f"owner{number}", number, process=process).register(shop, one)
    registry(run, "other", 2).register(shop, other)
    steady(run, shop, [one, other])
    watch = registry(run, "watcher", 2).subscribe(shop)
    if "initial" not in run.sdk.quirks:
        watch.until([one, other], run.sdk.told)
    witness = Witness(run, shop)
    try:
        began = time.monotonic()
        processes[0].kill()
        time.sleep(end(run) + 5)
        everywhere(run, shop, [one, other])
        seen = {"subscriber": watch.gaps([one, other], began), "query": witness.gaps([one, other], began)}
    finally:
        witness.close()
    for who, (missing, _) in seen.items():
        equal(missing, 0, f"seconds for which the instance was missing after one of its owners died, by {who}")
    processes[1].kill()
    everywhere(run, shop, [other], within=end(run))
    watch.until([other], run.sdk.told)


def beats(run):
    """An SDK of 1.x keeps its instances alive by beats; when they end they turn unhealthy, then they are gone."""
    process = run.another("provider")
    provider, shop = registry(run, "provider", 0, process=process), service(run)
    usual, quick = instance(1), instance(2, metadata=LATER)
    provider.register(shop, usual)
    provider.register(shop, quick)
    everywhere(run, shop, [usual, quick])
    watch = registry(run, "watcher", 1).subscribe(shop)
    # Beyond the usual 15 s and 30 s. Node sends its first beat after 10 s.
    began = time.monotonic()
    while time.monotonic() < began + 38:
        time.sleep(0.5)
        late = time.monotonic() > began + 15
        for node in run.cluster.nodes:
            hosts = listed(node, shop)
            healthy = names(one for one in hosts or [] if one["healthy"])
            wanted = [where(usual), where(quick)] if late else [where(usual)]
            check(set(wanted) <= set(healthy), f"node {node.number} after {time.monotonic() - began:.0f} s of beats: "
                  f"healthy are {healthy}")
    process.kill()
    killed = time.monotonic()
    everywhere(run, shop, [usual, {**quick, "healthy": False}], within=8 + 5 + 2)
    run.note(f"unhealthy after {time.monotonic() - killed:.1f} s")
    everywhere(run, shop, [usual], within=12 + 5 + 2)
    run.note(f"gone after {time.monotonic() - killed:.1f} s")
    everywhere(run, shop, lambda hosts: names(hosts) == [where(usual)] and not hosts[0]["healthy"], within=15 + 5 + 2)
    watch.until(lambda hosts: names(hosts) == [where(usual)] and not hosts[0]["healthy"], run.sdk.told)


def udp(run):
    """An SDK of 1.x that gave a UDP port hears of a change at once: three in a row, each within 2 s, its poll takes 10 s."""
    a, b, shop = registry(run, "a", 0), registry(run, "b", 1), service(run)
    stays = instance(1)
    a.register(shop, stays)
    everywhere(run, shop, [stays])
    watch = b.subscribe(shop)
    watch.until([stays], run.sdk.told)
    took = []
    for number in range(2, 5):
        a.register(shop, instance(number))
        everyone = [stays, *(instance(each) for each in range(2, number + 1))]
        took.append(watch.until(everyone, within=2))
    run.note(f"{max(took):.2f} s at most")


def restart(run):
    """A lone node stopped, then killed, and started again: everybody is back, nobody is told an empty list."""
    provider, watcher, shop, node = registry(run, "provider"), registry(run, "watcher"), service(run), run.node(0)
    one = instance(1)
    provider.register(shop, one)
    steady(run, shop, [one])
    watch = watcher.subscribe(shop)
    if "initial" not in run.sdk.quirks:
        watch.until([one], run.sdk.told)
    for end_ in (node.stop, node.kill):
        witness = Witness(run, shop)
        try:
            began = time.monotonic()
            end_()
            node.start()
            run.cluster.wait_ready()
            wake(run, shop, provider, watcher)
            ready = time.monotonic()
            everywhere(run, shop, [one], within=MOVING)
            run.note(f"listed {time.monotonic() - ready:.1f} s after it serves again")
            time.sleep(3)
            judge(run, watch, witness, [one], began, MOVING)
        finally:
            witness.close()
    # The subscription is back, too.
    second = instance(2)
    registry(run, "late").register(shop, second)
    watch.until([one, second], again(run))


def kill(run):
    """kill -9 of a provider's node: no list is empty, the instance stays or is back soon, beyond the grace too."""
    shop, process = service(run), run.another("provider")
    provider = registry(run, "provider", servers=run.cluster.addresses, process=process)
    one, two, three, four = (instance(number) for number in range(1, 5))
    provider.register(shop, one)
    victim = run.node(1) if run.sdk.http else run.seat(provider, process)
    rest = [node for node in run.cluster.nodes if node is not victim]
    registry(run, "second", servers=[node.address for node in rest]).register(shop, two)
    other = registry(run, "other", servers=[node.address for node in rest])
    steady(run, shop, [one, two])
    watches = [provider.subscribe(shop), registry(run, "watcher", servers=[rest[0].address]).subscribe(shop)]
    if "initial" not in run.sdk.quirks:
        for watch in watches:
            watch.until([one, two], run.sdk.told)
    witness = Witness(run, shop)
    try:
        began = time.monotonic()
        victim.kill()
        # Before those who sat there have subscribed again: they must be told all the same.
        other.register(shop, three)
        for watch in watches:
            watch.until([one, two, three], again(run) + 5)
        run.note(f"a change meanwhile told after {time.monotonic() - began:.1f} s")
        everywhere(run, shop, [one, two, three], within=run.sdk.quirks.get("redo", 10))
        time.sleep(max(0, began + GRACE + 8 - time.monotonic()))
        everywhere(run, shop, [one, two, three])
        for watch in watches:
            judge(run, watch, witness, [one, two], began, run.sdk.quirks.get("moving", MOVING))
        victim.start()
        run.cluster.wait_ready()
        everywhere(run, shop, [one, two, three])
        time.sleep(3)
        judge(run, watches[0], witness, [one, two], began, run.sdk.quirks.get("moving", MOVING))
    finally:
        witness.close()
        heal(run)
    registry(run, "fourth", servers=[victim.address]).register(shop, four)
    for watch in watches:
        watch.until([one, two, three, four], again(run))


def both(run):
    """A client that dies with its node is gone when the grace is over, and is kept while it could still come back."""
    shop, process = service(run), run.another("provider")
    victim, lost, stays = run.node(2), mortal(run, 1), mortal(run, 2)
    registry(run, "provider", servers=[victim.address], process=process).register(shop, lost)
    registry(run, "other", servers=[run.node(0).address]).register(shop, stays)
    steady(run, shop, [lost, stays])
    watch = registry(run, "watcher", servers=[run.node(1).address]).subscribe(shop)
    if "initial" not in run.sdk.quirks:
        watch.until([lost, stays], run.sdk.told)
    # As when a machine with both loses its power: neither sees the other's end.
    process.freeze()
    began = time.monotonic()
    victim.kill()
    process.kill()
    try:
        if not run.sdk.http:
            time.sleep(GRACE - 10)
            everywhere(run, shop, [lost, stays], within=0)
        everywhere(run, shop, [stays], within=GRACE + 20)
        run.note(f"gone after {time.monotonic() - began:.1f} s")
        watch.until([stays], run.sdk.told)
    finally:
        victim.start()
        run.cluster.wait_ready()
    everywhere(run, shop, [stays])
    time.sleep(3)
    everywhere(run, shop, [stays])
    missing, _ = watch.gaps([stays], began)
    equal(missing, 0, "seconds for which a subscriber missed the one that lives")


def rolling(run):
    """Three nodes restarted in turn: no subscriber sees an empty list or misses somebody for long."""
    shop, process = service(run), run.another("providers")
    all_ = [instance(number) for number in (1, 2, 3)]
    providers = [registry(run, f"of-{where(one)}", servers=run.cluster.addresses, process=process) for one in all_]
    for provider, one in zip(providers, all_):
        provider.register(shop, one)
    steady(run, shop, all_)
    watchers = [registry(run, f"watcher{number}", servers=run.cluster.addresses) for number in range(2)]
    watches = [watcher.subscribe(shop) for watcher in watchers]
    if "initial" not in run.sdk.quirks:
        for watch in watches:
            watch.until(all_, run.sdk.told)
    witness = Witness(run, shop)
    try:
        began = time.monotonic()
        for node in run.cluster.nodes:
            equal(node.stop(), 0, f"exit code of node {node.number}")
            node.start()
            run.cluster.wait_ready()
            wake(run, shop, *providers, *watchers)
            everywhere(run, shop, all_, within=run.sdk.quirks.get("redo", 10))
            time.sleep(2)
        time.sleep(5)
        for watch in watches:
            judge(run, watch, witness, all_, began, run.sdk.quirks.get("moving", MOVING))
    finally:
        witness.close()
        heal(run)
    late = instance(4)
    registry(run, "late").register(shop, late)
    for watch in watches:
        watch.until([*all_, late], again(run))


def heal(run):
    """Whoever is down at the end of a case that failed is started again: the next case is another one's."""
    down = [node for node in run.cluster.nodes if node.process.poll() is not None]
    for node in down:
        node.start()
    if down:
        run.cluster.wait_ready()


def judge(run, watch, witness, all_, since, limit):
    """No list that was told or answered was empty, and nobody was missing from them for longer than the limit."""
    told, asked = watch.gaps(all_, since), witness.gaps(all_, since)
    run.note(f"missing {told[0]:.1f} s told, {asked[0]:.1f} s asked")
    wrong = []
    for who, (missing, empty) in (("told to a subscriber", told), ("answered to queries", asked)):
        if empty:
            wrong.append(f"{empty} empty lists {who}")
        if missing > limit * run.patience:
            wrong.append(f"somebody missing for {missing:.1f} s in lists {who}")
    if wrong:
        raise Broken("; ".join(wrong) + f"; told were {[names(hosts) for at, hosts in watch.lists() if at >= since][-6:]}")


# Name, case, part of the run that has it, nodes it needs (0: any).
CASES = [
    ("gone", gone, "full", 0),
    ("owners", owners, "full", 0),
    ("beats", beats, "full", 0),
    ("udp", udp, "full", 0),
    ("n-restart", restart, "full", 1),
    ("n-kill", kill, "full", 3),
    ("n-both", both, "full", 3),
    ("n-rolling", rolling, "full", 3),
]
