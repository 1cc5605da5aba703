"""Applications that find each other through the server: how each is built and started."""

import os
import shutil

from sdks import HERE, Sdk

APPS = os.path.join(HERE, "apps")


class App(Sdk):
    """One program with two roles, `provider` and `consumer`. Cases start as many as they want."""

    tools = ("java", "javac", "mvn")
    domains = ("app",)
    stands = False

    def build(self):
        source = os.path.join(APPS, self.name)
        pom, program = os.path.join(source, "pom.xml"), os.path.join(source, "Application.java")
        if self.current(pom, program):
            return
        library, classes = os.path.join(self.folder, "lib"), os.path.join(self.folder, "classes")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.fetch("mvn", "-B", "-ntp", "-q", "-f", pom, "dependency:copy-dependencies", "-DincludeScope=runtime",
                   f"-DoutputDirectory={library}")
        self.run("javac", "-parameters", "-d", classes, "-cp", os.path.join(library, "*"), program)
        self.done()

    def java(self, scratch):
        return ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Duser.home={scratch}",
                f"-DJM.LOG.PATH={scratch}/log", f"-DJM.SNAPSHOT.PATH={scratch}",
                "-cp", f"{self.folder}/classes:{self.folder}/lib/*", "app.Application"]


class Spring(App):
    """Greets with a word from the configuration `greeting.properties`; sees a change of it."""

    configured = True

    def start(self, scratch, role, name, service, servers):
        return [*self.java(scratch), role,
                f"--provider.name={name}",
                f"--spring.application.name={service if role == 'provider' else 'consumer'}",
                "--server.address=127.0.0.1", "--server.port=0",
                f"--spring.cloud.nacos.server-addr={','.join(servers)}",
                f"--spring.cloud.nacos.discovery.server-addr={','.join(servers)}",
                f"--spring.cloud.nacos.config.server-addr={','.join(servers)}",
                "--spring.cloud.nacos.discovery.ip=127.0.0.1",
                f"--spring.cloud.nacos.discovery.register-enabled={'true' if role == 'provider' else 'false'}",
                # By itself it asks only every 35 s who is there.
                "--spring.cloud.loadbalancer.cache.enabled=false",
                "--spring.main.banner-mode=off",
                f"--spring.config.import=optional:nacos:{service}.properties?refreshEnabled=true"]


class Dubbo(App):
    configured = False

    def start(self, scratch, role, name, service, servers):
        registry = f"nacos://{servers[0]}"
        if servers[1:]:
            registry += f"?backup={','.join(servers[1:])}"
        return [*self.java(scratch), role, name, registry]


ALL = [Spring("spring", "2025.0.0.0"), Dubbo("dubbo", "3.3.5")]
