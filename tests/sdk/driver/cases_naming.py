"""Cases of naming, written once for every SDK; those in which processes die are in `cases_naming_faults.py`."""

import time

from client import SdkError
from harness import Broken, check, equal
from naming import Watch, colleague, everywhere, instance, names, registry, service, where


def register(run):
    """What is registered is listed with all that was said of it, everywhere; what is deregistered is gone."""
    a, b, shop = registry(run, "a", 0), registry(run, "b", 1), service(run)
    one = instance(1, weight=2.5, metadata={"zone": "a b", "emoji": "😀", "quote": "\"'\\"})
    a.register(shop, one)
    a.eventually(shop, [one])
    b.eventually(shop, [one])
    everywhere(run, shop, [one])
    changed = instance(1, weight=0.5, metadata={"zone": "c"})
    a.register(shop, changed)
    a.eventually(shop, [changed])
    b.eventually(shop, [changed], within=run.sdk.told)
    everywhere(run, shop, [changed])
    a.deregister(shop, one)
    everywhere(run, shop, [])
    if "empties" not in run.sdk.quirks:
        b.eventually(shop, [], within=run.sdk.told)
    # What is not there is deregistered already.
    a.deregister(shop, one)


def batch(run):
    """Several at once by one client; the next batch replaces the set; what a client takes out of it is gone."""
    a, b, shop = registry(run, "a", 0), registry(run, "b", 1), service(run)
    all_ = [instance(number, weight=float(number), metadata={"n": str(number)}) for number in range(1, 6)]
    watch = b.subscribe(shop)
    a.batch(shop, all_)
    everywhere(run, shop, all_)
    watch.until(all_, run.sdk.told)
    fewer = [all_[1], all_[3]]
    a.batch(shop, fewer)
    everywhere(run, shop, fewer)
    watch.until(fewer, run.sdk.told)
    if "unbatch" not in run.sdk.quirks:
        check(a.call("unbatch", shop, instances=[all_[3]]), "taking one out of a batch said no")
        everywhere(run, shop, [all_[1]])
        watch.until([all_[1]], run.sdk.told)
    # One registered alone replaces the batch: a client holds one set for a service.
    alone = instance(9)
    a.batch(shop, [alone])
    everywhere(run, shop, [alone])
    b.eventually(shop, [alone], within=run.sdk.told)


def subscribe(run):
    """A subscriber is told what is there, what comes, changes and goes, and of nothing else."""
    a, b, shop, other = registry(run, "a", 0), registry(run, "b", 1), service(run), service(run)
    first, second = instance(1), instance(2)
    nothing_yet = b.subscribe(other)
    a.register(shop, first)
    everywhere(run, shop, [first])
    watch = b.subscribe(shop)
    if "initial" in run.sdk.quirks:
        time.sleep(3)
    else:
        watch.until([first], run.sdk.told)
    c = registry(run, "c", 2)
    c.register(shop, second)
    took = [watch.until([first, second], run.sdk.told)]
    changed = instance(2, metadata={"color": "blue"}, weight=3.0)
    c.register(shop, changed)
    took.append(watch.until([first, changed], run.sdk.told))
    c.deregister(shop, changed)
    took.append(watch.until([first], run.sdk.told))
    if "empties" not in run.sdk.quirks:
        a.deregister(shop, first)
        took.append(watch.until([], run.sdk.told))
        a.register(shop, first)
        took.append(watch.until([first], run.sdk.told))
    run.note(f"{max(took) * 1000:.0f} ms at most")
    check(not any(hosts for _, hosts in nothing_yet.lists()), "told of another service")
    told = len(watch.lists())
    watch.close()
    c.register(shop, second)
    everywhere(run, shop, [first, second])
    time.sleep(2)
    if "stays subscribed" not in run.sdk.quirks:
        equal(len(watch.lists()), told, "lists told after the subscription ended")


def idle(run):
    """Nothing changes: nobody is told anything again, however often the same is registered."""
    a, b, shop = registry(run, "a", 0), registry(run, "b", 1), service(run)
    one = instance(1)
    a.register(shop, one)
    watch = b.subscribe(shop)
    everywhere(run, shop, [one])
    if "initial" not in run.sdk.quirks:
        watch.until([one], run.sdk.told)
    time.sleep(2)
    told = len(watch.lists())
    for _ in range(5):
        a.register(shop, one)
    # Node would hear of it by its next poll.
    time.sleep(run.sdk.told)
    equal(len(watch.lists()), told, "lists told while nothing changed")


def select(run):
    """Only healthy ones of some weight are selected; of several the heavier one more often."""
    a, shop = registry(run, "a"), service(run)
    light, heavy, resting = instance(1), instance(2, weight=9.0), instance(3, weight=0.0)
    # Nobody beats for it: unhealthy after 2 s, and there for a minute.
    ill = instance(4, metadata={"preserved.heart.beat.interval": "1000", "preserved.heart.beat.timeout": "2000",
                                "preserved.ip.delete.timeout": "60000"})
    for one in (light, heavy):
        registry(run, f"of-{where(one)}").register(shop, one)
    colleague(run.node(0), "POST", shop, resting)
    colleague(run.node(1), "POST", shop, ill)
    ill = {**ill, "healthy": False}
    everywhere(run, shop, [light, heavy, resting, ill])
    wanted = [light, heavy, resting] if "weightless" in run.sdk.quirks else [light, heavy]
    a.eventually(shop, wanted, within=run.sdk.told, read=a.select)
    if "both healths" not in run.sdk.quirks:
        equal(names(a.select(shop, healthy=False)), [where(ill)], "what is selected of those that are ill")
    if "pick" in run.sdk.quirks:
        return
    picked = a.call("pick", shop, count=300)
    equal(sorted(picked), [where(light), where(heavy)], "who was picked")
    # 270 expected, standard deviation 5.2.
    check(238 <= picked[where(heavy)] <= 299, f"of 300 picks the nine times heavier one got {picked[where(heavy)]}")


def disabled(run):
    """Who is disabled is seen by nobody: by itself, or by a colleague; a new registration does not undo the latter."""
    a, b, shop = registry(run, "a", 0), registry(run, "b", 1), service(run)
    one, two, off = instance(1), instance(2), instance(3, enabled=False)
    a.register(shop, one)
    registry(run, "c").register(shop, off)
    registry(run, "d").register(shop, two)
    everywhere(run, shop, [one, two])
    b.eventually(shop, [one, two])
    # Not by one that has read it: Go and Python tell nobody what they know already.
    watch = registry(run, "watcher", 1).subscribe(shop)
    if "initial" in run.sdk.quirks:
        time.sleep(3)
    else:
        watch.until([one, two], run.sdk.told)
    colleague(run.node(2), "PUT", shop, {**two, "enabled": False})
    everywhere(run, shop, [one])
    watch.until([one], run.sdk.told)
    a.register(shop, {**one, "metadata": {"again": "1"}})
    everywhere(run, shop, [{**one, "metadata": {"again": "1"}}])
    colleague(run.node(1), "PUT", shop, two)
    everywhere(run, shop, lambda hosts: names(hosts) == [where(one), where(two)])
    watch.until(watch.has(where(one), where(two)), run.sdk.told)


def clusters(run):
    """One address in two clusters is two instances; who asks for clusters sees and hears of those only."""
    a, b, c, shop = registry(run, "a", 0), registry(run, "b", 1), registry(run, "c", 2), service(run)
    east, west, both = instance(1, cluster="EAST"), instance(2, cluster="WEST"), instance(3, cluster="BOTH")
    a.register(shop, east)
    b.register(shop, west)
    c.register(shop, both)
    everywhere(run, shop, [east, west, both])
    everywhere(run, shop, [east], clusters="EAST")
    everywhere(run, shop, [east, both], clusters="EAST,BOTH")
    everywhere(run, shop, [], clusters="NORTH")
    reader = registry(run, "reader", 1)
    reader.eventually(shop, [east], "EAST", within=run.sdk.told)
    reader.eventually(shop, [east, both], "EAST", "BOTH", within=run.sdk.told)
    reader.eventually(shop, [west], "WEST", within=run.sdk.told, read=reader.select)
    watch = registry(run, "watcher", 2).subscribe(shop, "EAST")
    if "initial" in run.sdk.quirks:
        time.sleep(3)
    else:
        watch.until([east], run.sdk.told)
    changed = instance(1, cluster="EAST", metadata={"v": "2"})
    b.register(shop, instance(2, cluster="WEST", metadata={"v": "2"}))
    a.register(shop, changed)
    watch.until([changed], run.sdk.told)
    told = {where(one) for _, hosts in watch.lists() for one in hosts}
    equal(told, {where(east)}, "who a subscriber of one cluster was told of")


def groups(run):
    """A service of the same name in another group or namespace is another one; "" and "public" are one namespace."""
    shop, default = service(run), service(run, group="DEFAULT_GROUP")
    default = default._replace(name=shop.name)
    seats = {spelling: registry(run, f"of-{spelling or 'empty'}", number, namespace=spelling)
             for number, spelling in enumerate(("", "public", "sdk-own"))}
    mine, theirs, elsewhere = instance(1), instance(2), instance(3)
    watches = {spelling: seat.subscribe(shop) for spelling, seat in seats.items()}
    seats[""].register(shop, mine)
    seats["public"].register(default, theirs)
    seats["sdk-own"].register(shop, elsewhere)
    everywhere(run, shop, [mine])
    everywhere(run, shop, [mine], namespace="public")
    everywhere(run, default, [theirs])
    everywhere(run, shop, [elsewhere], namespace="sdk-own")
    for spelling in ("", "public"):
        seats[spelling].eventually(shop, [mine], within=run.sdk.told)
        seats[spelling].eventually(default, [theirs], within=run.sdk.told)
    seats["sdk-own"].eventually(shop, [elsewhere], within=run.sdk.told)
    equal(seats["sdk-own"].instances(default), [], "a group of another namespace")
    if "initial" in run.sdk.quirks or "one ear" in run.sdk.quirks:
        return
    for spelling, wanted in (("", mine), ("public", mine), ("sdk-own", elsewhere)):
        watches[spelling].until([wanted], run.sdk.told)
        told = {where(one) for _, hosts in watches[spelling].lists() for one in hosts}
        equal(told, {where(wanted)}, f"who a subscriber in {spelling!r} was told of")


def services(run):
    """The services of a group are counted and named, page by page, those of other groups are not."""
    a, b = registry(run, "a", 0), registry(run, "b", 1)
    group = f"LIST_{run.sdk.name}_{run.key().data_id}"
    shops = [service(run, f"list{number}-", group) for number in range(7)]
    a.register(service(run), instance(9))
    for number, shop in enumerate(shops):
        a.register(shop, instance(number + 1))
    for shop in shops:
        everywhere(run, shop, lambda hosts: len(hosts) == 1)
    found = []
    for page, wanted in ((1, 3), (2, 3), (3, 1), (4, 0)):
        answer = b.call("services", shops[0], pageNo=page, pageSize=3)
        equal(answer["count"], 7, f"services counted on page {page}")
        equal(len(answer["names"] or []), wanted, f"services on page {page}")
        found += answer["names"] or []
    equal(sorted(found), sorted(shop.name for shop in shops), "services of the group")


def watch(run):
    """A fuzzy watch is told which services are there, come and go, and of no others."""
    a, b = registry(run, "a", 0), registry(run, "b", 1)
    prefix = f"watched-{run.key().data_id}"
    there = [service(run, f"{prefix}-") for _ in range(3)]
    for number, shop in enumerate([*there, service(run, "unwatched-")]):
        a.register(shop, instance(number + 1))
        everywhere(run, shop, lambda hosts: len(hosts) == 1)
    listener = Watch(b, f"{b.name}/fuzzy")
    b.call("fuzzy", there[0]._replace(name=f"{prefix}*"), listener=listener.name)

    def told(shop, change):
        event = listener.wait(lambda event: (event["service"], event["change"]) == (shop.name, change))
        check(event, f"not told {change} of {shop.name}: {listener.events()}")

    for shop in there:
        told(shop, "ADD_SERVICE")
    late = service(run, f"{prefix}-")
    a.register(late, instance(8))
    told(late, "ADD_SERVICE")
    a.deregister(late, instance(8))
    told(late, "DELETE_SERVICE")
    wrong = [event for event in listener.events() if not event["service"].startswith(prefix)]
    equal(wrong, [], "told of services that do not match")


def kinds(run):
    """Who registers for good stays when its process is killed and until it is deregistered; a service is of one kind."""
    process = run.another("provider")
    a, b, shop = registry(run, "a", process=process), registry(run, "b", 1), service(run)
    one, two = instance(1, ephemeral=False, metadata={"kept": "yes"}), instance(2, ephemeral=False)
    listens = lambda hosts: names(hosts) == [where(one), where(two)]  # noqa: E731: health is not the point here
    a.register(shop, one)
    a.register(shop, two)
    everywhere(run, shop, listens)
    watch = b.subscribe(shop)
    try:
        a.register(shop, instance(3))
        # HTTP SDKs say why not, gRPC ones carry what the server refused.
        everywhere(run, shop, listens)
    except (SdkError, Broken) as error:
        run.said(error)
    process.kill()
    # Well over what an ephemeral one of a gRPC client outlives its process.
    time.sleep(5)
    everywhere(run, shop, listens)
    if len(run.cluster.nodes) == 1:
        run.node(0).kill()
        run.node(0).start()
        run.cluster.wait_ready()
        everywhere(run, shop, listens, within=20)
    kept = b.returned(lambda: b.instances(shop))
    check(any(one_["metadata"] == {"kept": "yes"} for one_ in kept), f"metadata was lost: {kept}")
    b.returned(lambda: b.deregister(shop, two))
    everywhere(run, shop, lambda hosts: names(hosts) == [where(one)])
    watch.until(watch.has(where(one)), run.sdk.quirks.get("again", run.sdk.quirks.get("redo", run.sdk.told + 5)))
    b.deregister(shop, one)
    everywhere(run, shop, [])


# Name, case, part of the run that has it, nodes it needs (0: any).
CASES = [
    ("register", register, "fast", 0),
    ("batch", batch, "fast", 0),
    ("subscribe", subscribe, "fast", 0),
    ("idle", idle, "full", 0),
    ("select", select, "fast", 0),
    ("disabled", disabled, "fast", 0),
    ("clusters", clusters, "fast", 0),
    ("groups", groups, "fast", 0),
    ("services", services, "fast", 0),
    ("watch", watch, "fast", 0),
    ("persistent", kinds, "full", 0),
]
