"""The naming half of nacos-sdk-python 2.x and 3.x behind the line protocol of tests/sdk."""

from v2.nacos import (
    BatchRegisterInstanceParam,
    DeregisterInstanceParam,
    ListInstanceParam,
    ListServiceParam,
    NacosNamingService,
    RegisterInstanceParam,
    SubscribeServiceParam,
)

registries = {}
subscriptions = {}


async def connect(command, config):
    # It does not tell its user otherwise that the last instance has gone.
    config.update_cache_when_empty = True
    config.load_cache_at_start = False
    registries[command["client"]] = await NacosNamingService.create_naming_service(config)
    return True


def registration(command, instance):
    return RegisterInstanceParam(
        service_name=command["service"],
        group_name=command["group"],
        ip=instance["ip"],
        port=instance["port"],
        weight=instance["weight"],
        enabled=instance["enabled"],
        healthy=instance["healthy"],
        ephemeral=instance["ephemeral"],
        cluster_name=instance["cluster"],
        metadata=instance["metadata"],
    )


def listed(hosts):
    return [
        {
            "ip": host.ip,
            "port": host.port,
            "weight": host.weight,
            "healthy": host.healthy,
            "enabled": host.enabled,
            "ephemeral": host.ephemeral,
            "cluster": host.clusterName,
            "metadata": host.metadata,
        }
        for host in hosts or []
    ]


def subscription(command, say):
    async def told(hosts):
        say({"event": "instances", "listener": command["listener"], "hosts": listed(hosts)})

    return SubscribeServiceParam(
        service_name=command["service"], group_name=command["group"], clusters=command["clusters"], subscribe_callback=told
    )


async def run(command, say):
    op, service = command["op"], registries[command["client"]]
    if op == "close":
        await registries.pop(command["client"]).shutdown()
        return True
    if op == "register":
        return await service.register_instance(registration(command, command["instance"]))
    if op in ("batch", "unbatch"):
        param = BatchRegisterInstanceParam(
            service_name=command["service"],
            group_name=command["group"],
            instances=[registration(command, one) for one in command["instances"]],
        )
        return await (service.batch_register_instances if op == "batch" else service.batch_deregister_instances)(param)
    if op == "deregister":
        instance = command["instance"]
        return await service.deregister_instance(
            DeregisterInstanceParam(
                service_name=command["service"],
                group_name=command["group"],
                ip=instance["ip"],
                port=instance["port"],
                cluster_name=instance["cluster"],
                ephemeral=instance["ephemeral"],
            )
        )
    if op in ("instances", "select"):
        return listed(
            await service.list_instances(
                ListInstanceParam(
                    service_name=command["service"],
                    group_name=command["group"],
                    clusters=command["clusters"],
                    healthy_only=command["healthy"] if op == "select" else None,
                )
            )
        )
    if op == "subscribe":
        param = subscriptions[command["listener"]] = subscription(command, say)
        await service.subscribe(param)
        return True
    if op == "unsubscribe":
        await service.unsubscribe(subscriptions.pop(command["listener"]))
        return True
    if op == "services":
        param = ListServiceParam(group_name=command["group"], page_no=command["pageNo"], page_size=command["pageSize"])
        found = await service.list_services(param)
        return {"count": found.count, "names": found.services}
    raise ValueError(f"unsupported: {op}")
