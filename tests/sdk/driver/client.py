"""One SDK in a process of its own, spoken to in lines of JSON (README.md: the line protocol)."""

import itertools
import json
import os
import signal
import subprocess
import threading
import time


class SdkError(Exception):
    """The SDK refused or failed; the text is its own."""


class Gone(Exception):
    """The client program ended, or did not answer within the deadline."""


class Client:
    """Commands may be sent from several threads at once; events of listeners are kept in order of arrival."""

    def __init__(self, command, scratch, environment=None):
        os.makedirs(scratch, exist_ok=True)
        self.scratch = scratch
        self._stderr = open(os.path.join(scratch, "client.stderr"), "ab")
        # Own HOME: several SDKs keep snapshots and logs below it and would read those of another run.
        environment = dict(os.environ, HOME=scratch, USERPROFILE=scratch, **(environment or {}))
        self.process = subprocess.Popen(
            command, cwd=scratch, env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr,
        )
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._answers = {}
        self._events = []
        self._ended = False
        self._sending = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()
        ready = self.wait_event(lambda event: event["event"] == "ready", 60)
        if ready is None:
            raise Gone(f"the client did not start, see {scratch}/client.stderr")
        self.sdk = ready["sdk"]

    def call(self, op, within=30, **fields):
        """Sends one command and returns what the SDK returned."""
        return self.finish(self.begin(op, **fields), within)

    def begin(self, op, **fields):
        """Sends one command; `finish` waits for its answer."""
        number = next(self._numbers)
        line = json.dumps({"id": number, "op": op, **fields}).encode() + b"\n"
        with self._sending:
            try:
                self.process.stdin.write(line)
                self.process.stdin.flush()
            except BrokenPipeError as error:
                raise Gone(f"{op}: the client program has ended") from error
        return number

    def finish(self, number, within=30):
        deadline = time.monotonic() + within
        with self._changed:
            while number not in self._answers:
                left = deadline - time.monotonic()
                if self._ended or left <= 0 or not self._changed.wait(left):
                    if number in self._answers:
                        break
                    what = "the client program ended" if self._ended else f"no answer within {within} s"
                    raise Gone(what)
            answer = self._answers.pop(number)
        if "error" in answer:
            raise SdkError(answer["error"])
        return answer["ok"]

    def events(self, listener=None):
        """What listeners were told so far, all of them or those of one."""
        with self._changed:
            return [event for event in self._events if listener is None or event.get("listener") == listener]

    def wait_event(self, wanted, within):
        """The first event that `wanted` accepts, past ones included; None when none came in time."""
        deadline = time.monotonic() + within
        looked_at = 0
        with self._changed:
            while True:
                for event in itertools.islice(self._events, looked_at, None):
                    if wanted(event):
                        return event
                looked_at = len(self._events)
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    return None
                self._changed.wait(left)

    def wait_for(self, holds, within):
        """Whether `holds` became true in time; asked again at each event."""
        deadline = time.monotonic() + within
        with self._changed:
            while not holds():
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def kill(self):
        """kill -9 of the program and of what it started."""
        self._signal(signal.SIGKILL)
        self.process.wait()

    def freeze(self):
        """Stands still from now on, and keeps its connections: a machine that is cut off, for those who see only it."""
        self._signal(signal.SIGSTOP)

    def _signal(self, which):
        for pid in family(self.process.pid):
            try:
                os.kill(pid, which)
            except ProcessLookupError:
                continue

    def close(self):
        if self.process.poll() is None:
            try:
                self.begin("quit")
                self.process.stdin.close()
                self.process.wait(10)
            except (Gone, OSError, subprocess.TimeoutExpired):
                self.process.kill()
        self.process.wait()
        self._stderr.close()

    def ports(self):
        """Remote ports of the established connections of this process and its children."""
        inodes = set()
        for pid in family(self.process.pid):
            try:
                for descriptor in os.listdir(f"/proc/{pid}/fd"):
                    target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
                    if target.startswith("socket:["):
                        inodes.add(target[8:-1])
            except OSError:
                continue
        found = []
        for table in ("tcp", "tcp6"):
            with open(f"/proc/net/{table}", encoding="ascii") as rows:
                for row in itertools.islice(rows, 1, None):
                    columns = row.split()
                    if columns[3] == "01" and columns[9] in inodes:
                        found.append(int(columns[2].rsplit(":", 1)[1], 16))
        return found

    def _read(self):
        for line in self.process.stdout:
            try:
                message = json.loads(line)
            except ValueError:
                # An SDK that prints: kept for the reader of a failure, not part of the protocol.
                self._stderr.write(b"stdout: " + line)
                continue
            with self._changed:
                if "event" in message:
                    message["at"] = time.monotonic()
                    self._events.append(message)
                else:
                    self._answers[message["id"]] = message
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def family(pid):
    """The process and all that descend from it."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stat:
                    parent = int(stat.read().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(name))
    open_, found = [pid], []
    while open_:
        one = open_.pop()
        found.append(one)
        open_.extend(children.get(one, []))
    return found
