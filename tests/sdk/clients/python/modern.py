"""nacos-sdk-python 2.x and 3.x (asyncio, gRPC) behind the line protocol of tests/sdk (README.md there)."""

import asyncio
import json
import os
import sys
import threading
from importlib.metadata import version

import modern_naming
from v2.nacos import ClientConfigBuilder, ConfigParam, GRPCConfig, NacosConfigService
from v2.nacos.common.nacos_exception import NacosException

SCRATCH = os.getcwd()
services = {}


def say(line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def connect(command):
    config = (
        ClientConfigBuilder()
        .server_address(",".join(command["servers"]))
        .namespace_id(command.get("namespace", ""))
        .log_dir(os.path.join(SCRATCH, "log"))
        .cache_dir(os.path.join(SCRATCH, "cache", command["client"]))
        .grpc_config(GRPCConfig(grpc_timeout=command.get("timeoutMs", 5000)))
        .build()
    )
    # A cached value in place of the server's would hide what the tests look for.
    config.disable_use_config_cache = True
    if command.get("domain") == "naming":
        return await modern_naming.connect(command, config)
    services[command["client"]] = await NacosConfigService.create_config_service(config)
    return True


def listener_of(name):
    async def told(_tenant, _data_id, _group, content):
        say({"event": "change", "listener": name, "content": content})

    return told


async def run(command):
    op = command["op"]
    if op == "connect":
        return await connect(command)
    if command["client"] in modern_naming.registries:
        return await modern_naming.run(command, say)
    service = services[command["client"]]
    if op == "close":
        await services.pop(command["client"]).shutdown()
        return True
    data_id, group = command["dataId"], command["group"]
    if op == "listen":
        await service.add_listener(data_id, group, listener_of(command["listener"]))
        return True
    param = ConfigParam(
        data_id=data_id,
        group=group,
        content=command.get("content", ""),
        type=command.get("type") or "",
        cas_md5=command.get("md5", ""),
        beta_ips=command.get("ips", ""),
        tag=command.get("tag", ""),
    )
    if op == "get":
        # "" is how this SDK says that there is none.
        return await service.get_config(param) or None
    if op in ("publish", "cas", "beta", "tag"):
        return await service.publish_config(param)
    if op == "remove":
        return await service.remove_config(param)
    raise ValueError(f"unsupported: {op}")


async def answer(command):
    try:
        say({"id": command["id"], "ok": await run(command)})
    except NacosException as error:
        say({"id": command["id"], "error": f"NacosException {error.error_code}: {error}"})
    except Exception as error:  # noqa: BLE001: whatever it is, the driver is told
        say({"id": command["id"], "error": f"{type(error).__name__}: {error}"})


def read(loop, commands):
    for line in sys.stdin:
        loop.call_soon_threadsafe(commands.put_nowait, json.loads(line))
    loop.call_soon_threadsafe(commands.put_nowait, {"op": "quit"})


async def main():
    commands = asyncio.Queue()
    threading.Thread(target=read, args=(asyncio.get_running_loop(), commands), daemon=True).start()
    say({"event": "ready", "sdk": "nacos-sdk-python " + version("nacos-sdk-python")})
    running = set()
    while (command := await commands.get())["op"] != "quit":
        task = asyncio.create_task(answer(command))
        running.add(task)
        task.add_done_callback(running.discard)
    os._exit(0)


asyncio.run(main())
