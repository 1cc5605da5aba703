"""The naming half of nacos-sdk-python 0.1.x behind the line protocol of tests/sdk."""

from nacos.listener import SubscribeListener

POLL_SECONDS = 1  # its own is 7; what a test waits for is the server, not the poll


def listed(hosts):
    return [
        {
            "ip": host["ip"],
            "port": host["port"],
            "weight": host["weight"],
            "healthy": host["healthy"],
            "enabled": host["enabled"],
            "ephemeral": host["ephemeral"],
            "cluster": host["clusterName"],
            "metadata": host["metadata"],
        }
        for host in hosts
    ]


def subscribe(client, command, say):
    service = command["service"]

    def told(_event, _change):
        # Told of one instance at a time; what its user takes for the list is the SDK's memory.
        known = client.subscribed_local_manager.get_local_instances(service) or {}
        hosts = [one.instance for one in list(known.values())]
        say({"event": "instances", "listener": command["listener"], "hosts": listed(hosts)})

    client.subscribe(
        SubscribeListener(fn=told, listener_name=command["listener"]),
        POLL_SECONDS,
        service_name=service,
        group_name=command["group"],
        clusters=",".join(command["clusters"]) or None,
    )
    # By itself its poll ends for ever with the first error.
    client.subscribe_timer_manager.all_timers()[f"service-subscribe-timer-{service}"].set_ignore_ex(True)
    return True


def run(client, command, say):
    op, service, group = command["op"], command["service"], command["group"]
    if op == "subscribe":
        return subscribe(client, command, say)
    if op == "unsubscribe":
        client.unsubscribe(service, command["listener"])
        return True
    if op in ("instances", "select"):
        found = client.list_naming_instance(
            service,
            clusters=",".join(command["clusters"]) or None,
            group_name=group,
            healthy_only=op == "select" and command["healthy"],
        )
        return listed(found["hosts"])
    instance = command["instance"]
    where = {"cluster_name": instance["cluster"], "ephemeral": instance["ephemeral"], "group_name": group}
    if op == "deregister":
        return client.remove_naming_instance(service, instance["ip"], instance["port"], **where)
    if op == "register":
        return client.add_naming_instance(
            service,
            instance["ip"],
            instance["port"],
            weight=instance["weight"],
            metadata=instance["metadata"],
            enable=instance["enabled"],
            healthy=instance["healthy"],
            # Without it the SDK sends no beats.
            heartbeat_interval=int(instance["metadata"].get("preserved.heart.beat.interval", 5000)) / 1000,
            **where,
        )
    raise ValueError("unsupported: " + op)
