"""The SDKs: how each is built, started, and what it cannot do."""

import glob
import os
import shutil
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CLIENTS = os.path.join(HERE, "clients")


class Skipped(Exception):
    """The language is not on this machine, or a registry did not give the packages in time; the text says which."""


class Unbuildable(Exception):
    """Everything is there, and the client does not build: a mistake in it, whatever the network does."""


class Sdk:
    """`cannot` maps a case to the reason why the SDK has no such thing; such a case is shown as `-`.

    `http` marks SDKs that speak HTTP only: they poll, so a node is left at the end of a poll or when it breaks.
    """

    http = False
    tools = ()
    # Which cases it is for, and whether they have a process of it from the start.
    domains = ("config", "naming")
    stands = True
    # Seconds until a subscriber knows of a change of a service: pushed, or at the next poll.
    told = 5

    def __init__(self, name, version, cannot=None, quirks=None):
        self.name = name
        self.version = version
        self.cannot = cannot or {}
        # Ways in which the SDK differs that a case must know, with the reason.
        self.quirks = quirks or {}

    def back(self, seconds):
        """Deadline for the first change after a connection broke: the promise, or what the SDK takes by itself."""
        return max(seconds, self.quirks.get("relisten", 0))

    def prepare(self, build, within=None):
        """Builds into the folder `build` within so many seconds, or raises Skipped or Unbuildable. Costs little when
        nothing has changed."""
        missing = [tool for tool in self.tools if shutil.which(tool) is None]
        if missing:
            raise Skipped(f"not installed: {', '.join(missing)}")
        self.folder = os.path.join(build, self.name)
        self.log = os.path.join(build, f"{self.name}.log")
        self.within = within
        self.until = time.monotonic() + within if within else None
        self.build()

    def fetch(self, *command, **more):
        """A step that needs a registry: when it fails, the network may be to blame, and nothing is said about us."""
        if self.step(*command, **more) != 0:
            raise Skipped(f"cannot be fetched: {' '.join(command[:3])} failed, see {self.log}")

    def run(self, *command, **more):
        """A step that needs this machine alone."""
        if self.step(*command, **more) != 0:
            raise Unbuildable(f"cannot be built: {' '.join(command[:3])} failed, see {self.log}")

    def step(self, *command, cwd=None, environment=None):
        """The exit code. What is over its time is ended with everything it started."""
        with open(self.log, "ab") as log:
            process = subprocess.Popen(command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=log, start_new_session=True)
            try:
                return process.wait(max(0, self.until - time.monotonic()) if self.until else None)
            except subprocess.TimeoutExpired as over:
                raise Skipped(f"not built within {self.within} s: {' '.join(command[:3])}, see {self.log}") from over
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()

    def current(self, *sources):
        """Whether the folder was built from exactly these files; `done` says so afterwards."""
        self.stamp = "\n".join(open(source, encoding="utf-8").read() for source in sources) + self.version
        try:
            with open(os.path.join(self.folder, "built-from"), encoding="utf-8") as built:
                return built.read() == self.stamp
        except OSError:
            return False

    def done(self):
        os.makedirs(self.folder, exist_ok=True)
        with open(os.path.join(self.folder, "built-from"), "w", encoding="utf-8") as built:
            built.write(self.stamp)


class Java(Sdk):
    tools = ("java", "javac", "mvn")

    def build(self):
        source = os.path.join(CLIENTS, "java")
        folders = ["any", "three"] if self.version.startswith("3.") else ["any"]
        files = [file for folder in folders for file in sorted(glob.glob(os.path.join(source, folder, "*.java")))]
        pom = os.path.join(source, "pom.xml")
        if self.current(pom, *files):
            return
        library, classes = os.path.join(self.folder, "lib"), os.path.join(self.folder, "classes")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.fetch("mvn", "-B", "-ntp", "-q", "-f", pom, "dependency:copy-dependencies", f"-Dnacos.version={self.version}",
                   "-DincludeScope=runtime", f"-DoutputDirectory={library}")
        self.run("javac", "-d", classes, "-cp", os.path.join(library, "*"), *files)
        self.done()

    def command(self, scratch):
        return ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Duser.home={scratch}",
                f"-DJM.LOG.PATH={scratch}/log", f"-DJM.SNAPSHOT.PATH={scratch}", "-Dnacos.remote.client.grpc.timeout=10000",
                "-cp", f"{self.folder}/classes:{self.folder}/lib/*", "Client", self.version]


class Java1(Java):
    http = True
    told = 15


class Go(Sdk):
    tools = ("go",)

    def build(self):
        source = os.path.join(CLIENTS, "go")
        if self.current(*(os.path.join(source, name) for name in ("main.go", "naming.go", "go.mod", "go.sum"))):
            return
        os.makedirs(self.folder, exist_ok=True)
        environment = dict(os.environ, GOFLAGS="-mod=readonly")
        self.fetch("go", "list", "-deps", ".", cwd=source, environment=environment)
        environment["GOPROXY"] = "off"
        self.run("go", "build", "-o", os.path.join(self.folder, "client"), ".", cwd=source, environment=environment)
        self.done()

    def command(self, scratch):
        return [os.path.join(self.folder, "client")]


class Python(Sdk):
    program = "modern.py"

    def build(self):
        requirements = os.path.join(CLIENTS, "python", f"requirements-{self.name}.txt")
        if self.current(requirements):
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        # On Debian a package of its own: python3-venv.
        self.fetch(sys.executable, "-m", "venv", self.folder)
        self.fetch(os.path.join(self.folder, "bin", "pip"), "install", "-q", "--no-deps", "-r", requirements)
        self.done()

    def command(self, scratch):
        return [os.path.join(self.folder, "bin", "python"), os.path.join(CLIENTS, "python", self.program)]


class Python0(Python):
    program = "classic.py"
    http = True


class Node(Sdk):
    tools = ("node", "npm")
    http = True
    told = 15

    def build(self):
        source = os.path.join(CLIENTS, "node")
        files = [os.path.join(source, name) for name in ("client.js", "naming.js", "package.json", "package-lock.json")]
        if self.current(*files):
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder)
        for file in files:
            shutil.copy(file, self.folder)
        self.fetch("npm", "ci", "--no-audit", "--no-fund", cwd=self.folder)
        self.done()

    def command(self, scratch):
        return ["node", os.path.join(self.folder, "client.js")]


class Rust(Sdk):
    tools = ("cargo",)

    def build(self):
        manifest = os.path.join(CLIENTS, "rust", "Cargo.toml")
        self.fetch("cargo", "fetch", "--locked", "--manifest-path", manifest)
        self.run("cargo", "build", "--offline", "--locked", "--manifest-path", manifest, "--target-dir", self.folder)

    def command(self, scratch):
        return [os.path.join(self.folder, "debug", "sdk-rust")]


NO_CAS = "no compare-and-set in its interface"
NO_GRAY = "no beta or tag publishing in its interface"
IN_THE_LINE = "it puts the content into the request line, where 1 MiB in all is the limit"
PULLERS = "what it pulls with leaves it no time to register more: 6,200 keys in 5 minutes"
NOT_TOLD = "when the content it asks for after a notification is not there, its listeners hear nothing"
FULL_TASK = "its key number 3,000 of 3,000 belongs to a second task, which starts with key 3,001"
FOUR_MIB = "it takes no message above 4 MiB from a server, whatever it is told (gRPC's default)"
FIRST = "the first content it sees of a config is not told"
COMPARES = "what has not changed yet it compares every 5 s, told or not"
NO_FUZZY = "fuzzy watches came with Java 3.0"
NO_BATCH = "no batches in its interface"
NO_BEATS = "its connection keeps its instances alive"
NO_UDP = "it is pushed to over its connection"
NO_PICK = "it does not choose among instances"
NO_INITIAL = "what is there when it subscribes is not told"
NO_ILL = "its filter is healthy ones or all"
WEIGHTLESS = "instances of weight 0 are listed as all others"
NO_EMPTIES = "an empty list is ignored, and what was there before is kept"
LATE = "its first beat comes 10 s after it started"
NO_LIST = "no list of services in its interface"
NO_PORT = "it gives no UDP port"
NOT_ITS_OWN = "it tells its outward address; over loopback that is not where it speaks from, and nobody else is sent to"
ONE_EAR = "its listeners hear of a service of that name and group in each namespace that the process has a client of"

NOT_ASKED = "it does not answer when it is asked what it holds"

# What gRPC SDKs do without.
GRPC = {"beats": NO_BEATS, "udp": NO_UDP}
OLD = {"fuzzy": NO_FUZZY, "watch": NO_FUZZY}
JAVA = {"beta": NO_GRAY, "tag": NO_GRAY, **GRPC}
HTTP = {"held": NOT_ASKED, "cas": NO_CAS, "beta": NO_GRAY, "tag": NO_GRAY, "batch": NO_BATCH, **OLD}

ALL = [
    Java("java3", "3.2.1-2026.03.30", JAVA),
    Java("java30", "3.0.3", JAVA),
    Java("java2", "2.5.1", {**JAVA, **OLD}),
    Java("java20", "2.0.4", {**JAVA, **OLD, "batch": NO_BATCH}, quirks={"one ear": ONE_EAR}),
    # Its poll waits twice as long after each refusal.
    Java1("java1", "1.4.8", HTTP, quirks={"full task": FULL_TASK, "again": 60}),
    Go("go", "2.3.5", {"held": NOT_ASKED, **GRPC, **OLD},
       quirks={"removal": NOT_TOLD, "bulk": 6, "unbatch": NO_BATCH}),
    Python("python3", "3.2.0", {"held": NOT_ASKED, **GRPC, **OLD, "9m": FOUR_MIB}, quirks={"bulk": 6, "compares": COMPARES, "pick": NO_PICK, "redo": 35}),
    # What was registered and subscribed it does again every 30 s, whenever it reconnected. In 2.0 it sees a broken
    # connection only by its health check, which comes after 5 s to 10 s.
    Python("python2", "2.0.11", {"held": NOT_ASKED, **GRPC, **OLD, "9m": FOUR_MIB},
           quirks={"bulk": 6, "relisten": 15, "deaf": True, "compares": COMPARES, "pick": NO_PICK, "redo": 45}),
    Python0("python0", "0.1.17",
            {**HTTP, "1m": IN_THE_LINE, "9m": IN_THE_LINE, "10000": PULLERS, "services": NO_LIST, "udp": NO_PORT},
            quirks={"initial": NO_INITIAL, "pick": NO_PICK, "both healths": NO_ILL, "weightless": WEIGHTLESS}),
    Node("node", "2.6.3", {**HTTP, "services": NO_LIST, "udp": NOT_ITS_OWN},
         quirks={"empties": NO_EMPTIES, "pick": NO_PICK, "late beat": LATE}),
    # It sees a broken connection by its health check, 10 s late at most, and connects 2 s later, then 4 s, 8 s ..., so
    # subscriptions come late, too.
    Rust("rust", "0.8.3", {"held": NOT_ASKED, **GRPC, **OLD, "9m": FOUR_MIB, "created": FIRST},
         quirks={"removal": NOT_TOLD, "relisten": 15, "bulk": 15, "first": FIRST, "unbatch": NO_BATCH, "again": 20}),
]
