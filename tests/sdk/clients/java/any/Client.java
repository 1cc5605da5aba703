import com.alibaba.nacos.api.NacosFactory;
import com.alibaba.nacos.api.PropertyKeyConst;
import com.alibaba.nacos.api.config.ConfigService;
import com.alibaba.nacos.api.config.listener.Listener;
import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executor;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.function.Consumer;

/**
 * nacos-client of any generation behind the line protocol of tests/sdk (README.md there). What only some generations
 * have is called by reflection; fuzzy watches live in {@code three/}, which only 3.x can compile. Configuration is here,
 * naming in {@link Naming}.
 */
public final class Client {
    private static final Gson JSON = new GsonBuilder().serializeNulls().create();
    private static final Map<String, ConfigService> CLIENTS = new ConcurrentHashMap<>();
    /** The SDK may print; stdout carries nothing but the protocol. */
    private static final PrintStream OUT = System.out;

    public static void main(String[] arguments) throws Exception {
        System.setOut(System.err);
        say(event("ready", "sdk", "nacos-client " + arguments[0]));
        ExecutorService workers = Executors.newCachedThreadPool();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            JsonObject command = JSON.fromJson(line, JsonObject.class);
            if (text(command, "op").equals("quit")) {
                break;
            }
            workers.execute(() -> answer(command));
        }
        // The SDK's threads are not all daemons.
        Runtime.getRuntime().halt(0);
    }

    private static void answer(JsonObject command) {
        JsonObject answer = new JsonObject();
        answer.add("id", command.get("id"));
        try {
            Object value = run(command);
            answer.add("ok", JSON.toJsonTree(value));
        } catch (InvocationTargetException error) {
            answer.addProperty("error", String.valueOf(error.getCause()));
        } catch (Throwable error) {
            answer.addProperty("error", String.valueOf(error));
        }
        say(answer);
    }

    private static Object run(JsonObject command) throws Exception {
        String operation = text(command, "op");
        String name = text(command, "client");
        if (operation.equals("connect")) {
            if (text(command, "domain").equals("naming")) {
                Naming.CLIENTS.put(name, NacosFactory.createNamingService(properties(command)));
            } else {
                CLIENTS.put(name, NacosFactory.createConfigService(properties(command)));
            }
            return true;
        }
        if (Naming.CLIENTS.containsKey(name)) {
            return Naming.run(Naming.CLIENTS.get(name), command);
        }
        ConfigService client = CLIENTS.get(name);
        String dataId = text(command, "dataId");
        String group = text(command, "group");
        String content = text(command, "content");
        String type = text(command, "type");
        switch (operation) {
            case "get":
                return client.getConfig(dataId, group, command.get("timeoutMs").getAsLong());
            case "publish":
                return client.publishConfig(dataId, group, content, type);
            case "cas":
                return ConfigService.class
                        .getMethod("publishConfigCas", String.class, String.class, String.class, String.class)
                        .invoke(client, dataId, group, content, text(command, "md5"));
            case "remove":
                return client.removeConfig(dataId, group);
            case "listen":
                client.addListener(dataId, group, listener(text(command, "listener")));
                return true;
            case "fuzzy":
                Class.forName("Fuzzy")
                        .getMethod("watch", ConfigService.class, String.class, String.class, Consumer.class)
                        .invoke(null, client, dataId, group, told(text(command, "listener")));
                return true;
            case "close":
                client.shutDown();
                CLIENTS.remove(name);
                return true;
            default:
                throw new UnsupportedOperationException("unsupported: " + operation);
        }
    }

    private static Properties properties(JsonObject command) {
        StringBuilder servers = new StringBuilder();
        JsonArray listed = command.getAsJsonArray("servers");
        for (JsonElement server : listed) {
            servers.append(servers.length() == 0 ? "" : ",").append(server.getAsString());
        }
        Properties properties = new Properties();
        properties.put(PropertyKeyConst.SERVER_ADDR, servers.toString());
        properties.put(PropertyKeyConst.NAMESPACE, text(command, "namespace"));
        // All of 3,000 keys are to be asked for at once; by itself the SDK spares the server (5 calls a second).
        properties.put("clientWorkerThreadCount", "4");
        return properties;
    }

    private static Listener listener(String name) {
        return new Listener() {
            @Override
            public Executor getExecutor() {
                return null;
            }

            @Override
            public void receiveConfigInfo(String content) {
                say(event("change", "listener", name, "content", content));
            }
        };
    }

    private static Consumer<String[]> told(String name) {
        return event -> say(event("fuzzy", "listener", name, "dataId", event[0], "group", event[1],
                "namespace", event[2], "change", event[3], "sync", event[4]));
    }

    static JsonObject event(String kind, String... pairs) {
        JsonObject event = new JsonObject();
        event.addProperty("event", kind);
        for (int index = 0; index < pairs.length; index += 2) {
            event.addProperty(pairs[index], pairs[index + 1]);
        }
        return event;
    }

    static String text(JsonObject command, String field) {
        JsonElement value = command.get(field);
        return value == null || value.isJsonNull() ? "" : value.getAsString();
    }

    static void say(JsonObject line) {
        synchronized (OUT) {
            try {
                OUT.write(JSON.toJson(line).getBytes(StandardCharsets.UTF_8));
                OUT.write('\n');
                OUT.flush();
            } catch (java.io.IOException gone) {
                // The driver may be gone; then there is nobody to tell.
            }
        }
    }
}
