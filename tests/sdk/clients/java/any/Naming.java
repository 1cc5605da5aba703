import com.alibaba.nacos.api.naming.NamingService;
import com.alibaba.nacos.api.naming.listener.EventListener;
import com.alibaba.nacos.api.naming.listener.NamingEvent;
import com.alibaba.nacos.api.naming.pojo.Instance;
import com.alibaba.nacos.api.naming.pojo.ListView;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Consumer;

/** The naming half of {@link Client}. Batches came with 2.2 and fuzzy watches with 3.0: both by reflection. */
final class Naming {
    static final Map<String, NamingService> CLIENTS = new ConcurrentHashMap<>();
    private static final Map<String, EventListener> LISTENERS = new ConcurrentHashMap<>();

    static Object run(NamingService client, JsonObject command) throws Exception {
        String service = Client.text(command, "service");
        String group = Client.text(command, "group");
        String listener = Client.text(command, "listener");
        List<String> clusters = new ArrayList<>();
        if (command.has("clusters")) {
            command.getAsJsonArray("clusters").forEach(cluster -> clusters.add(cluster.getAsString()));
        }
        switch (Client.text(command, "op")) {
            case "register":
                client.registerInstance(service, group, instance(command.getAsJsonObject("instance")));
                return true;
            case "deregister":
                client.deregisterInstance(service, group, instance(command.getAsJsonObject("instance")));
                return true;
            case "batch":
                return batch("batchRegisterInstance", client, service, group, command);
            case "unbatch":
                return batch("batchDeregisterInstance", client, service, group, command);
            case "instances":
                return list(client.getAllInstances(service, group, clusters, false));
            case "select":
                boolean healthy = command.get("healthy").getAsBoolean();
                return list(client.selectInstances(service, group, clusters, healthy, false));
            case "pick":
                return pick(client, service, group, clusters, command.get("count").getAsInt());
            case "subscribe":
                EventListener told = event -> told(listener, (NamingEvent) event);
                LISTENERS.put(listener, told);
                client.subscribe(service, group, clusters, told);
                return true;
            case "unsubscribe":
                client.unsubscribe(service, group, clusters, LISTENERS.remove(listener));
                return true;
            case "services":
                return services(client, group, command.get("pageNo").getAsInt(), command.get("pageSize").getAsInt());
            case "fuzzy":
                Consumer<String[]> sink = event -> Client.say(Client.event("fuzzy", "listener", listener,
                        "service", event[0], "group", event[1], "namespace", event[2], "change", event[3],
                        "sync", event[4]));
                Class.forName("NamingFuzzy")
                        .getMethod("watch", NamingService.class, String.class, String.class, Consumer.class)
                        .invoke(null, client, service, group, sink);
                return true;
            case "close":
                client.shutDown();
                CLIENTS.remove(Client.text(command, "client"));
                return true;
            default:
                throw new UnsupportedOperationException("unsupported: " + Client.text(command, "op"));
        }
    }

    private static Object batch(String method, NamingService client, String service, String group, JsonObject command)
            throws Exception {
        List<Instance> instances = new ArrayList<>();
        for (JsonElement one : command.getAsJsonArray("instances")) {
            instances.add(instance(one.getAsJsonObject()));
        }
        NamingService.class.getMethod(method, String.class, String.class, List.class)
                .invoke(client, service, group, instances);
        return true;
    }

    private static Object pick(NamingService client, String service, String group, List<String> clusters, int count)
            throws Exception {
        Map<String, Integer> picked = new TreeMap<>();
        for (int number = 0; number < count; number++) {
            Instance one = client.selectOneHealthyInstance(service, group, clusters, true);
            picked.merge(one.getIp() + ":" + one.getPort(), 1, Integer::sum);
        }
        return picked;
    }

    private static Object services(NamingService client, String group, int pageNo, int pageSize) throws Exception {
        ListView<String> found = client.getServicesOfServer(pageNo, pageSize, group);
        JsonObject answer = new JsonObject();
        answer.addProperty("count", found.getCount());
        JsonArray names = new JsonArray();
        found.getData().forEach(names::add);
        answer.add("names", names);
        return answer;
    }

    private static void told(String listener, NamingEvent event) {
        JsonObject line = Client.event("instances", "listener", listener);
        line.add("hosts", list(event.getInstances()));
        Client.say(line);
    }

    private static Instance instance(JsonObject given) {
        Instance instance = new Instance();
        instance.setIp(Client.text(given, "ip"));
        instance.setPort(given.get("port").getAsInt());
        instance.setWeight(given.get("weight").getAsDouble());
        instance.setHealthy(given.get("healthy").getAsBoolean());
        instance.setEnabled(given.get("enabled").getAsBoolean());
        instance.setEphemeral(given.get("ephemeral").getAsBoolean());
        instance.setClusterName(Client.text(given, "cluster"));
        Map<String, String> metadata = new TreeMap<>();
        given.getAsJsonObject("metadata").entrySet()
                .forEach(entry -> metadata.put(entry.getKey(), entry.getValue().getAsString()));
        instance.setMetadata(metadata);
        return instance;
    }

    private static JsonArray list(List<Instance> hosts) {
        JsonArray found = new JsonArray();
        for (Instance host : hosts) {
            JsonObject one = new JsonObject();
            one.addProperty("ip", host.getIp());
            one.addProperty("port", host.getPort());
            one.addProperty("weight", host.getWeight());
            one.addProperty("healthy", host.isHealthy());
            one.addProperty("enabled", host.isEnabled());
            one.addProperty("ephemeral", host.isEphemeral());
            one.addProperty("cluster", host.getClusterName());
            JsonObject metadata = new JsonObject();
            host.getMetadata().forEach(metadata::addProperty);
            one.add("metadata", metadata);
            found.add(one);
        }
        return found;
    }
}
