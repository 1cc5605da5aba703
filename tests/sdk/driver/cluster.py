"""Server processes under test: one node or three, on loopback, with data in a scratch folder."""

import os
import random
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

_taken = set()
_taking = threading.Lock()

# Below the range from which the kernel gives out ports to outgoing connections.
PORTS = range(12000, 31000)
# SDKs compute the gRPC port from the HTTP port; the console of r-nacos is moved out of the way.
GRPC_OFFSET = 1000
CONSOLE_OFFSET = 500


def take_port():
    """An HTTP port whose gRPC and console ports are free too, and not given out in this run."""
    with _taking:
        while True:
            port = random.choice(PORTS)
            wanted = [port, port + CONSOLE_OFFSET, port + GRPC_OFFSET]
            if not _taken.intersection(wanted) and all(map(is_free, wanted)):
                _taken.update(wanted)
                return port


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class Node:
    """One server process and its folder; the folder survives restarts."""

    def __init__(self, cluster, number):
        self.cluster = cluster
        self.number = number
        self.http = take_port()
        self.grpc = self.http + GRPC_OFFSET
        self.folder = os.path.join(cluster.scratch, f"node{number}")
        os.makedirs(self.folder)
        self.process = None

    @property
    def address(self):
        return f"127.0.0.1:{self.http}"

    def start(self):
        founder = self.cluster.nodes[0] if self.cluster.nodes else self
        settings = {
            "RNACOS_HTTP_PORT": self.http,
            "RNACOS_GRPC_PORT": self.grpc,
            "RNACOS_HTTP_CONSOLE_PORT": self.http + CONSOLE_OFFSET,
            "RNACOS_SDK_HOST": "127.0.0.1",
            "RNACOS_CONSOLE_HOST": "127.0.0.1",
            "RNACOS_RAFT_NODE_ID": self.number,
            "RNACOS_RAFT_NODE_ADDR": f"127.0.0.1:{self.grpc}",
            "RNACOS_DATA_DIR": os.path.join(self.folder, "db"),
            "RUST_LOG": os.environ.get("RUST_LOG", "info"),
        }
        if founder is self:
            settings["RNACOS_RAFT_AUTO_INIT"] = "true"
        else:
            settings["RNACOS_RAFT_JOIN_ADDR"] = f"127.0.0.1:{founder.grpc}"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RNACOS_")}
        environment.update({key: str(value) for key, value in settings.items()})
        environment.update(self.cluster.environment)
        with open(os.path.join(self.folder, "server.log"), "ab") as log:
            self.process = subprocess.Popen(
                [self.cluster.server], cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self, within=20):
        """SIGTERM; the exit code, or None when it had to be killed."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def request(self, method, path, within=5, **parameters):
        """Status and body; (0, reason) when there was no answer."""
        parameters = urllib.parse.urlencode({key: value for key, value in parameters.items() if value is not None})
        url = f"http://{self.address}/nacos{path}"
        body = None
        if method == "POST":
            body = parameters.encode()
        else:
            url += "?" + parameters
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, method=method), timeout=within) as answer:
                return answer.status, answer.read().decode(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace"), dict(error.headers)
        except OSError as error:
            return 0, str(error), {}


class Cluster:
    def __init__(self, server, scratch, count, environment=None):
        self.server = server
        self.scratch = scratch
        self.environment = environment or {}
        self.nodes = []
        os.makedirs(scratch, exist_ok=True)
        try:
            for number in range(1, count + 1):
                node = Node(self, number)
                node.start()
                self.nodes.append(node)
                # r-nacos joins only a leader that is already there; so does everybody's script.
                self.wait_ready([self.nodes[0]] if number == 1 else self.nodes)
        except BaseException:
            # Nobody else knows of them yet.
            self.close()
            raise

    @property
    def addresses(self):
        return [node.address for node in self.nodes]

    def wait_ready(self, nodes=None, within=90):
        """Until every node named serves a value that was written through it a moment ago."""
        deadline = time.monotonic() + within
        for node in nodes or self.nodes:
            while not self._serves(node):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"node {node.number} is not ready within {within} s, see {node.folder}/server.log")
                time.sleep(0.1)

    def _serves(self, node):
        if node.process.poll() is not None:
            raise RuntimeError(f"node {node.number} ended ({node.process.returncode}), see {node.folder}/server.log")
        stamp = f"{node.number}-{random.random()}"
        key = {"dataId": f"ready-{node.number}", "group": "SDK_TESTS"}
        status, body, _ = node.request("POST", "/v1/cs/configs", content=stamp, **key)
        if (status, body) != (200, "true"):
            return False
        return node.request("GET", "/v1/cs/configs", **key)[:2] == (200, stamp)

    def publish(self, data_id, group, content, nodes=None, within=30, **more):
        """Writes over HTTP through whichever node takes it: what a colleague of the client under test would do."""
        deadline = time.monotonic() + within
        said = None
        while time.monotonic() < deadline:
            for node in nodes or self.nodes:
                if node.process.poll() is None:
                    said = node.request("POST", "/v1/cs/configs", dataId=data_id, group=group, content=content, **more)
                    if said[:2] == (200, "true"):
                        return
            time.sleep(0.05)
        raise RuntimeError(f"no node takes a write: {said}")

    def close(self):
        for node in self.nodes:
            if node.process and node.process.poll() is None:
                node.kill()
