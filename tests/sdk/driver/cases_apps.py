"""Cases of applications: a consumer calls providers by name, and the server is all that they know of each other."""

import time

from client import Client, SdkError
from harness import check, equal


class Office:
    """The processes of one case."""

    def __init__(self, run, servers=None):
        self.run = run
        self.servers = servers or run.cluster.addresses
        # Dubbo's applications are known by their interface, which is one: cases of it see each other's providers.
        self.service = f"greeter-{run.key().data_id}"

    def hire(self, role, name):
        scratch = self.run.folder(name)
        process = Client(self.run.sdk.start(scratch, role, name, self.service, self.servers), scratch)
        self.run.others.append(process)
        return process

    def answers(self, consumer, calls=8):
        """Who answered so many calls, by name, and how many failed."""
        found, failed = set(), 0
        for _ in range(calls):
            try:
                found.add(consumer.call("call", service=self.service, within=15))
            except SdkError as error:
                self.run.said(error)
                failed += 1
        return found, failed

    def until(self, consumer, wanted, within=15):
        """Calls until exactly these answer and no call fails; seconds that it took."""
        began = time.monotonic()
        while True:
            found, failed = self.answers(consumer)
            if found == wanted and not failed:
                return time.monotonic() - began
            check(time.monotonic() < began + within * self.run.patience,
                  f"answers are {sorted(found)}, {failed} of 8 calls failed, wanted {sorted(wanted)}; {self.run.heard[-1:]}")
            time.sleep(0.2)


def greeting(name, word="hello"):
    return f"{word} from {name}"


def meet(run):
    """A consumer finds a provider, a second one when it comes, and the rest when one is killed, one ends, all are gone."""
    office = Office(run)
    word = "hello"
    if run.sdk.configured:
        run.cluster.publish(f"{office.service}.properties", "DEFAULT_GROUP", "greeting=hello", type="properties")
    first, consumer = office.hire("provider", "first"), office.hire("consumer", "consumer")
    took = office.until(consumer, {greeting("first")})
    run.note(f"found {took:.1f} s after the start")
    second = office.hire("provider", "second")
    run.note(f"second {office.until(consumer, {greeting('first'), greeting('second')}):.1f} s")
    if run.sdk.configured:
        word = "good morning"
        run.cluster.publish(f"{office.service}.properties", "DEFAULT_GROUP", f"greeting={word}", type="properties")
        office.until(consumer, {greeting("first", word), greeting("second", word)})
    first.kill()
    run.note(f"one killed {office.until(consumer, {greeting('second', word)}):.1f} s")
    second.close()
    office.hire("provider", "third")
    run.note(f"exchanged {office.until(consumer, {greeting('third', word)}):.1f} s")


def lose(run):
    """Three nodes, each killed and started in turn: providers are called all the time, none fails to be found."""
    office = Office(run)
    if run.sdk.configured:
        run.cluster.publish(f"{office.service}.properties", "DEFAULT_GROUP", "greeting=hello", type="properties")
    office.hire("provider", "first")
    office.hire("provider", "second")
    consumer = office.hire("consumer", "consumer")
    wanted = {greeting("first"), greeting("second")}
    office.until(consumer, wanted)
    calls = 0
    for node in run.cluster.nodes:
        node.kill()
        until = time.monotonic() + 8
        started = False
        while time.monotonic() < until or not started:
            found, failed = office.answers(consumer, 20)
            calls += 20
            equal((found, failed), (wanted, 0), f"answers while node {node.number} was gone or new; {run.heard[-1:]}")
            time.sleep(0.1)
            if not started and time.monotonic() > until:
                node.start()
                run.cluster.wait_ready()
                started, until = True, time.monotonic() + 5
    run.note(f"{calls} calls")
    # Who comes now is found, too.
    office.hire("provider", "third")
    office.until(consumer, {*wanted, greeting("third")})


# Name, case, part of the run that has it, nodes it needs (0: any).
CASES = [
    ("meet", meet, "full", 0),
    ("lose", lose, "full", 3),
]
