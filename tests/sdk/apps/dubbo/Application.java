package app;

import com.google.gson.Gson;
import com.google.gson.JsonObject;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Scanner;
import org.apache.dubbo.config.ApplicationConfig;
import org.apache.dubbo.config.ProtocolConfig;
import org.apache.dubbo.config.ReferenceConfig;
import org.apache.dubbo.config.RegistryConfig;
import org.apache.dubbo.config.ServiceConfig;
import org.apache.dubbo.config.bootstrap.DubboBootstrap;

/**
 * A provider that greets, or a consumer that calls it, as Dubbo's users write them: {@code provider|consumer NAME
 * REGISTRY}. By itself Dubbo keeps its mapping of interfaces to applications, and its metadata, in the registry's
 * configuration, so both halves of the server are used. The consumer answers the line protocol's {@code call}.
 */
public final class Application {
    private static final Gson JSON = new Gson();
    private static final PrintStream OUT = System.out;

    /** What the one offers and the other calls. */
    public interface Greeter {
        String greet();
    }

    public static void main(String[] arguments) {
        System.setOut(System.err); // What Dubbo logs is no part of the line protocol.
        boolean provides = arguments[0].equals("provider");
        String name = arguments[1];
        ApplicationConfig application = new ApplicationConfig(provides ? "greeter" : "greeted");
        application.setQosEnable(false);
        RegistryConfig registry = new RegistryConfig(arguments[2]);
        DubboBootstrap dubbo = DubboBootstrap.getInstance().application(application).registry(registry);
        ReferenceConfig<Greeter> reference = new ReferenceConfig<>();
        if (provides) {
            ServiceConfig<Greeter> service = new ServiceConfig<>();
            service.setInterface(Greeter.class);
            service.setRef(() -> "hello from " + name);
            ProtocolConfig protocol = new ProtocolConfig("tri", -1);
            protocol.setHost("127.0.0.1");
            dubbo.protocol(protocol).service(service).start();
        } else {
            reference.setInterface(Greeter.class);
            reference.setTimeout(3000);
            reference.setRetries(0);
            reference.setCheck(false);
            dubbo.reference(reference).start();
        }
        JsonObject ready = new JsonObject();
        ready.addProperty("event", "ready");
        ready.addProperty("sdk", "dubbo 3.3.5");
        say(ready);
        Scanner in = new Scanner(System.in, StandardCharsets.UTF_8);
        while (in.hasNextLine()) {
            JsonObject command = JSON.fromJson(in.nextLine(), JsonObject.class);
            if (command.get("op").getAsString().equals("quit")) {
                break;
            }
            JsonObject answer = new JsonObject();
            answer.add("id", command.get("id"));
            try {
                answer.addProperty("ok", reference.get().greet());
            } catch (RuntimeException error) {
                answer.addProperty("error", String.valueOf(error));
            }
            say(answer);
        }
        dubbo.stop(); // Deregisters, as a graceful end does.
        Runtime.getRuntime().halt(0);
    }

    private static void say(JsonObject line) {
        OUT.println(JSON.toJson(line));
        OUT.flush();
    }
}
